# SPDX-License-Identifier: Apache-2.0
"""Images to predict on: one file, a folder, or a list, where a bad one does not stop the others."""

import difflib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from monai.data import DataLoader
from monai.utils import string_list_all_gather
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import InputError
from ..io.dicom import series_files
from ..prompts.form import box_prompt, click_prompt
from .datalists import find_datalist
from .listing import IMAGE_SUFFIXES, image_suffix, list_images, resolve_relative

logger = logging.getLogger(__name__)

KNOWN = ("image", "points", "boxes", "slice", "mask")  # of an item of a list
FILES = ("image", "mask")  # of these
PASSED_OVER = ("label", "name")  # of lists that serve training as well
SPLITS = ("testing", "test", "validation")  # of a Decathlon file, the first that it has
PROBLEM = "problem"  # key of the sentence that stands for an item that failed


def find_inputs(path: str | None, cache_dir: str) -> list[dict[str, Any]]:
    """List the images to predict on.

    Args:
        path: an image; a folder of images, or of one DICOM series, which is a volume; a JSON list of items like
            ``{"image": "a.png", "points": [[x, y, 1]]}`` (or plain paths), relative to the file; nothing takes the
            built-in sample's, with prompts from their labels.
        cache_dir: where the sample is kept.

    Returns:
        Items with ``image`` (a path), ``name`` (of the output files, unique) and the prompts of the list.

    Raises:
        InputError: when the path does not exist or holds no images.
    """
    if not path:
        sample = find_datalist(None, cache_dir)["validation"]
        asked = [{"image": pair["image"], **_ask(str(pair["label"]), i)} for i, pair in enumerate(sample)]
        return _name_uniquely(asked)
    given = Path(str(path)).expanduser()
    if given.suffix.lower() == ".json":
        items = _read_list(given)
    elif given.is_dir():
        images = [given] if len(series_files(given)) > 1 else list_images(given)
        items = [{"image": str(path)} for path in images]
        if not items:
            raise InputError(f"{given} holds no images: known are {', '.join(IMAGE_SUFFIXES)}")
    elif given.exists():
        items = [{"image": str(given)}]
    else:
        raise InputError(f"{given} does not exist: give an image, a folder of images, or a JSON list")
    return _name_uniquely(items)


class InputDataset(IterableDataset):
    """Prepare one item after another; one that fails becomes a problem, and the rest are done.

    Args:
        data: items with an ``image`` path.
        transform: of each item.
    """

    def __init__(self, data: Sequence[dict[str, Any]], transform: Callable) -> None:
        self.data = data
        self.transform = transform
        self.rank, self.processes = idist.get_rank(), idist.get_world_size()  # a loader's processes do not know

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()  # each process of a loader does its share, and each process of a run
        own, shares = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for item in self.data[self.rank * shares + own :: self.processes * shares]:
            try:
                prepared = self.transform(item)
            except Exception as error:
                prepared = {PROBLEM: _input_error(error)}
            yield prepared


class InputLoader(DataLoader):
    """Load an :class:`InputDataset` one item at a time; what fails is logged by name and left out.

    Args:
        dataset: of items and problems.
        num_workers: processes that prepare items.
    """

    def __init__(self, dataset: InputDataset, num_workers: int = 0) -> None:
        super().__init__(dataset, batch_size=1, num_workers=num_workers)
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        self.problems = []
        for batch in super().__iter__():
            if PROBLEM in batch:
                self.problems += batch[PROBLEM]
                logger.error(self.problems[-1])
            else:
                yield batch

    def fail(self, image: str, error: Exception) -> None:
        """Note and log that an image failed after it was loaded.

        Args:
            image: its path.
            error: of whoever segmented it or saved what was found.
        """
        self.problems.append(str(error) if str(image) in str(error) else f"{image}: {error}")
        logger.error(self.problems[-1])

    def finish(self) -> None:
        """Fail at the end when an item failed, in whichever process; the first process says it.

        Raises:
            InputError: with the one problem, or naming how many there were.
        """
        count = len(self.dataset.data)
        self.problems = [each for each in string_list_all_gather(self.problems, delimiter="\0") if each]
        if self.problems and idist.get_rank() > 0:
            raise SystemExit(1)
        if self.problems and count == 1:
            raise InputError(self.problems[0])
        if self.problems:
            raise InputError(
                f"{len(self.problems)} of {count} images failed, the others are done: {'; '.join(self.problems)}"
            )


def _input_error(error: BaseException) -> str:
    """Find the sentence that speaks to the user inside what MONAI wraps around it; re-raise what is no user's fault."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__
    raise error


def _read_list(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a JSON list of images")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # bad JSON, or bytes that are no text
        raise InputError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict):  # a Decathlon file
        content = next((content[key] for key in SPLITS if content.get(key)), None)
    listed = content if isinstance(content, list) else []
    items = [{"image": item} if isinstance(item, str) else item for item in listed]
    if not items or not all(isinstance(item, dict) and isinstance(item.get("image"), str) for item in items):
        raise InputError(f'{path} lists no images: expected [{{"image": "a.png", "points": [[x, y, 1]]}}, ...]')
    for item in items:
        unknown = sorted(set(item) - {*KNOWN, *PASSED_OVER})
        if unknown:
            nearest = difflib.get_close_matches(unknown[0], KNOWN, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(KNOWN)}"
            raise InputError(f"{path}: an item has {unknown[0]}, which nothing reads: {hint}")
    files = [{key: resolve_relative(path.parent, item[key]) for key in FILES if item.get(key)} for item in items]
    return [
        {**{k: item[k] for k in KNOWN if k in item and k not in FILES}, **paths} for item, paths in zip(items, files)
    ]


def _ask(label: str, index: int) -> dict[str, Any]:
    """Ask for each object of the sample's label, by a click on every second image and by a box on the others."""
    ids = np.asarray(Image.open(label))
    masks, rng = [ids == value for value in np.unique(ids[ids > 0])], np.random.RandomState(index)
    if index % 2:
        return {"boxes": [box_prompt(mask, rng).points.ravel().tolist() for mask in masks]}
    return {"points": [[[*click_prompt(mask, rng).points[0].tolist(), 1]] for mask in masks]}


def _name_uniquely(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name outputs by the image's stem, with its suffix or a number where two would be the same."""
    taken: set[str] = set()
    for item in items:
        path = Path(item["image"])
        suffix = image_suffix(path) or ("" if path.is_dir() else path.suffix)
        stem = path.name[: len(path.name) - len(suffix)]
        options = [stem, stem + suffix.replace(".", "_"), *(f"{stem}_{n}" for n in range(2, len(items) + 2))]
        item["name"] = next(name for name in options if name not in taken)
        taken.add(item["name"])
    return items
