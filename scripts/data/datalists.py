# SPDX-License-Identifier: Apache-2.0
"""Lists of images and labels from the layouts that data sets come in.

Each function returns ``{"training": [{"image": path, "label": path}, ...], "validation": [...]}`` and, where there is
one, ``"test"``, where a label may also be the masks that several raters drew of each class
(:data:`scripts.data.listing.Label`).
"""

import csv
import json
import logging
import re
from pathlib import Path
from typing import Any

from ..errors import InputError
from .listing import Datalist, Label, Pair, existing_folder, image_suffix, list_images, resolve_relative, split_pairs
from .refuge import is_refuge, refuge_datalist
from .sample import make_sample

logger = logging.getLogger(__name__)


def find_datalist(
    dataset_dir: str | None, cache_dir: str, val_fraction: float = 0.2, seed: int = 0, group_by: str | None = None
) -> Datalist:
    """List a data set of any known layout, or the built-in sample when none is given.

    Args:
        dataset_dir: a folder with ``datalist.json`` or ``dataset.json``, such a file of any name, a folder with
            ``images/`` and ``labels/``, or in the layout of the ISIC or the REFUGE challenge; nothing makes the sample.
        cache_dir: where the sample is kept.
        val_fraction: share of a folder without a split of its own that validates.
        seed: of that split.
        group_by: pattern of the images that stay together in it, see :func:`scripts.data.listing.group_names`.

    Raises:
        InputError: when the folder does not exist or has none of these layouts.
    """
    if not dataset_dir:
        sample = make_sample(Path(cache_dir) / "sample")
        logger.info(f"no dataset_dir given: using the built-in sample of made-up lesions at {sample}")
        return decathlon_datalist(str(sample), val_fraction, seed, group_by)
    dataset_dir = str(dataset_dir)  # a folder named 2017 comes as a number
    if dataset_dir.endswith(".json"):
        return decathlon_datalist(dataset_dir, val_fraction, seed, group_by)
    root = existing_folder(dataset_dir)
    if any((root / name).is_file() for name in ("datalist.json", "dataset.json")):
        return decathlon_datalist(dataset_dir, val_fraction, seed, group_by)
    if (root / "images").is_dir() and (root / "labels").is_dir():
        return folder_datalist(dataset_dir, val_fraction, seed, group_by)
    if any(root.glob("*ISIC*")):
        return isic_datalist(dataset_dir, val_fraction, seed, group_by)
    if is_refuge(root):
        return refuge_datalist(dataset_dir, val_fraction, seed, group_by)
    raise InputError(
        f"{root} has no layout that is known: expected datalist.json or dataset.json (Decathlon), images/ and "
        "labels/, or the folders of the ISIC or the REFUGE challenge; see docs/datasets.md"
    )


def decathlon_datalist(
    dataset_dir: str, val_fraction: float = 0.2, seed: int = 0, group_by: str | None = None
) -> Datalist:
    """List a data set of the Medical Segmentation Decathlon's layout.

    Args:
        dataset_dir: a folder with ``datalist.json`` or ``dataset.json``, or such a file; paths in it are relative to
            it. A label is a path, or a list of masks for each class, one mask of each rater.
        val_fraction: share of the training list that validates where the file has no ``validation`` list.
        seed: of that split.
        group_by: pattern of the images that stay together in it, see :func:`scripts.data.listing.group_names`.

    Raises:
        InputError: when there is no such file, or it is not of this layout.
    """
    path = Path(dataset_dir).expanduser()
    if path.is_dir():
        path = next(
            (path / n for n in ("datalist.json", "dataset.json") if (path / n).is_file()), path / "datalist.json"
        )
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a folder with a datalist.json or dataset.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if "file_ending" in content and "training" not in content:
            return nnunet_datalist(path.parent, content, val_fraction, seed, group_by)
        lists = {
            split: [
                {
                    "image": resolve_relative(path.parent, item["image"]),
                    "label": _label_paths(path.parent, item["label"]),
                    **_recorded_prompts(item),
                }
                for item in content.get(split, [])
                if split != "test"
                or (isinstance(item, dict) and "label" in item)  # the Decathlon's own are paths alone
            ]
            for split in ("training", "validation", "test")
        }
    except InputError:
        raise
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f'{path} is not a Decathlon list ({error}): expected {{"training": [{{"image": ..., "label": ...}}, ...]}}'
        ) from error
    if not any(lists.values()):
        raise InputError(f"{path} lists no images under training, validation or test")
    return split_pairs(lists["training"], val_fraction, seed, lists["validation"], group_by, lists["test"])


def _recorded_prompts(item: dict[str, Any]) -> dict[str, Any]:
    """Read the prompts that a person gave for the object of an image, (x, y, slice, label) each."""
    if not item.get("prompts"):
        return {}
    points = item["prompts"]
    if not isinstance(points, list) or not all(
        isinstance(p, list) and len(p) == 4 and all(type(v) in (int, float) for v in p) and p[3] in (0, 1, 2, 3)
        for p in points
    ):
        raise TypeError("prompts are a list of [x, y, slice, label], with label 0 to 3")
    return {"recorded": points}


def nnunet_datalist(
    root: Path, content: dict[str, Any], val_fraction: float = 0.2, seed: int = 0, group_by: str | None = None
) -> Datalist:
    """List a data set of nnU-Net's layout, version 2: ``imagesTr/case_0000.nii.gz`` and ``labelsTr/case.nii.gz``.

    Args:
        root: its folder.
        content: of its ``dataset.json``.
        val_fraction: share that validates.
        seed: of the split.
        group_by: as of :func:`decathlon_datalist`.

    Raises:
        InputError: when images have several channels, or nothing pairs.
    """
    channels = content.get("channel_names", {})
    if len(channels) > 1:
        shown = ", ".join(map(str, channels.values()))
        raise InputError(f"{root} is of nnU-Net with {len(channels)} channels ({shown}): give a list of one of them")
    ending = str(content["file_ending"])
    lists: dict[str, list[Pair]] = {}
    for split, part in (("training", "Tr"), ("test", "Ts")):
        labels = sorted((root / f"labels{part}").glob(f"*{ending}"))
        images = [root / f"images{part}" / f"{label.name.removesuffix(ending)}_0000{ending}" for label in labels]
        lists[split] = [{"image": str(image), "label": str(label)} for image, label in zip(images, labels)]
    if not lists["training"]:
        raise InputError(f"{root} is of nnU-Net, but labelsTr holds no *{ending}")
    return split_pairs(lists["training"], val_fraction, seed, group_by=group_by, test=lists["test"])


def _label_paths(root: Path, label: Any) -> Label:
    """Find a label's file, or the files of the raters of each class, beside a list."""
    if isinstance(label, str):
        return resolve_relative(root, label)
    if not label or not all(isinstance(raters, list) and raters for raters in label):
        raise TypeError("a label is a path, or a list of the raters' masks for each class")
    return [[resolve_relative(root, path) for path in raters] for raters in label]


def folder_datalist(
    dataset_dir: str, val_fraction: float = 0.2, seed: int = 0, group_by: str | None = None
) -> Datalist:
    """Pair ``images/`` and ``labels/`` by file stem and split them at random.

    Args:
        dataset_dir: a folder that holds both, each of files or of a folder for each patient; a label may add ``_mask``,
            ``_label``, ``_seg`` or ``_segmentation`` to the stem. A DICOM series is a folder of them, and so may a
            label be that is a DICOM SEG.
        val_fraction: share that validates.
        seed: of the split.
        group_by: pattern of the images that stay together in it.

    Raises:
        InputError: when a folder is missing or nothing pairs.
    """
    root = existing_folder(dataset_dir)
    images = _by_stem(existing_folder(root / "images"))
    labels = _by_stem(existing_folder(root / "labels"), r"_(mask|label|seg|segmentation)$")
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        logger.warning(
            f"{root}: left out {len(alone)} files without a partner of the same stem: {', '.join(alone[:5])}"
        )
    pairs = [{"image": images[stem], "label": labels[stem]} for stem in sorted(images.keys() & labels.keys())]
    if not pairs:
        raise InputError(f"{root}: no file in images/ has the stem of a file in labels/")
    return split_pairs(pairs, val_fraction, seed, group_by=group_by)


def isic_datalist(dataset_dir: str, val_fraction: float = 0.2, seed: int = 0, group_by: str | None = None) -> Datalist:
    """List the ISIC challenge's lesion segmentation, 2016 (CSV) or 2017 and 2018 (``*_segmentation.png``).

    Args:
        dataset_dir: the folder with the challenge's own folders and CSV files.
        val_fraction: share of the training images that validates where no validation or test masks are present.
        seed: of that split.
        group_by: pattern of the images that stay together in it, see :func:`scripts.data.listing.group_names`.

    Raises:
        InputError: when neither layout is found.
    """
    root = existing_folder(dataset_dir)
    tables = {split: next(root.glob(f"*ISIC*_{split}_GroundTruth.csv"), None) for split in ("Training", "Test")}
    if tables["Training"]:
        training, validation = (_isic_table(t) if t else [] for t in tables.values())
        return split_pairs(training, val_fraction, seed, validation, group_by, validation)

    images = {path.stem: path for path in sorted(root.rglob("*.jpg"))}
    found: Datalist = {"train": [], "validation": [], "test": []}
    for label in sorted(p for p in root.rglob("*.png") if p.stem.lower().endswith("_segmentation")):
        image = images.get(label.stem[: -len("_segmentation")])
        folder = str(label.parent.relative_to(root)).lower()
        split = next((s for s in ("validation", "test") if s in folder), "train")
        if image is None:
            logger.warning(f"{label}: left out, there is no image of its name")
        else:
            found[split].append({"image": str(image), "label": str(label)})
    if not found["train"]:
        raise InputError(
            f"{root} has neither ISBI2016_ISIC_Part1_Training_GroundTruth.csv nor *_segmentation.png masks"
        )
    held = found["validation"] or found["test"]
    return split_pairs(found["train"], val_fraction, seed, held, group_by, found["test"])


def _isic_table(path: Path) -> list[Pair]:
    """Read the 2016 table: in each row, one cell is a JPEG and one a PNG, relative to the table."""
    pairs = []
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        for row in csv.reader(file):
            image = next((c for c in row if c.lower().endswith((".jpg", ".jpeg"))), None)
            label = next((c for c in row if c.lower().endswith(".png")), None)
            if image and label:
                pairs.append({"image": str(path.parent / image), "label": str(path.parent / label)})
    if not pairs:
        raise InputError(f"{path} names no pairs of a .jpg image and a .png mask")
    return pairs


def _by_stem(folder: Path, ending: str = "$^") -> dict[str, str]:
    """Map the stem of each image, less an ending, to its path."""
    found: dict[str, str] = {}
    files = list_images(folder)
    if not files:  # one folder for each patient
        files = [path for sub in sorted(folder.rglob("*")) if sub.is_dir() for path in list_images(sub)]
    for path in files:
        suffix = image_suffix(path) or ""
        stem = re.sub(ending, "", path.name[: len(path.name) - len(suffix)], flags=re.IGNORECASE)
        stem = (path.parent.relative_to(folder) / stem).as_posix()
        if stem in found:
            raise InputError(f"{path} and {found[stem]} have the same stem: rename one")
        found[stem] = str(path)
    return found
