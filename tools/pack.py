# SPDX-License-Identifier: Apache-2.0
"""Small copies of a mixture's data sets, to take to a machine that has a GPU and little else.

    python -m tools.pack mixture.yaml packed --longest 320

Pictures become JPEG, their labels PNG of the same size; volumes and their labels are copied. ``packed/mixture.yaml``
names the copies, with all else that the mixture says of each set.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from monai.transforms import Resize
from PIL import Image

from scripts.data import find_datalist
from scripts.data.listing import Pair
from scripts.data.mixture import check_mixture, set_name
from scripts.errors import InputError
from scripts.io.axes import upright
from scripts.io.reading import label_values
from scripts.transforms import LoadCheckedImaged, ToRGB

read_image, read_label = LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True)


def pack(
    mixture: Sequence[Mapping[str, Any]], output_dir: Path, longest: int, quality: int, val_fraction: float = 0.2
) -> list[dict]:
    """Copy the data sets of a mixture, smaller.

    Args:
        mixture: as of :func:`scripts.data.mixture_datalist`.
        output_dir: a new or empty folder.
        longest: pixels of the longer side of a picture; a smaller one keeps its size.
        quality: of JPEG, 1 to 100.
        val_fraction: of sets without a split of their own.

    Returns:
        The mixture of the copies, whose folders are named relative to ``output_dir``.

    Raises:
        InputError: when ``output_dir`` holds something, or an image cannot be read or has the masks of several raters.
    """
    check_mixture(mixture)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise InputError(f"{output_dir} is not empty: give a new folder")
    copies = []
    for part in mixture:
        name = set_name(part)
        lists = find_datalist(part["dataset_dir"], str(output_dir / ".cache"), val_fraction)
        written = {
            split: [
                pack_pair(pair, output_dir / name, f"{split}_{i:05d}", longest, quality, part.get("intensity_range"))
                for i, pair in enumerate(pairs)
            ]
            for split, pairs in lists.items()
        }
        (output_dir / name / "datalist.json").write_text(json.dumps(written))
        copies.append({**part, "dataset_dir": name})
    return copies


def pack_pair(
    pair: Pair, folder: Path, stem: str, longest: int, quality: int, intensity_range: Any = None
) -> dict[str, str]:
    """Copy one image and its label; give their paths in the folder.

    Args:
        pair: of a list.
        folder: of the data set's copy.
        stem: of both files.
        longest: pixels of the longer side.
        quality: of JPEG.
        intensity_range: of pictures of more than 8 bits, as :class:`scripts.transforms.ToRGB` takes it.
    """
    if not isinstance(pair["label"], str):
        raise InputError(f"{pair['image']} has the masks of several raters: give one label for each image")
    image = read_image({"image": pair["image"]})["image"]
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    if image.ndim == 4:  # a volume
        names = {key: f"{key}s/{stem}{''.join(Path(pair[key]).suffixes[-2:])}" for key in ("image", "label")}
        for key, name in names.items():
            copy = shutil.copytree if Path(pair[key]).is_dir() else shutil.copyfile
            copy(pair[key], folder / name)
        return names
    label = label_values(read_label({"label": pair["label"]})["label"])
    side = min(longest, max(image.shape[1:]))
    rgb = Resize(side, size_mode="longest", mode="bilinear", anti_aliasing=True)(ToRGB(intensity_range)(image))
    ids = Resize(list(rgb.shape[1:]), mode="nearest-exact")(label.float())
    pixels = upright(np.asarray((255 * rgb.clamp(0, 1)).round(), np.uint8)).transpose(1, 2, 0)  # (H, W, 3)
    Image.fromarray(pixels).save(folder / "images" / f"{stem}.jpg", quality=quality)
    rows = upright(np.asarray(ids[0]))
    Image.fromarray(rows.astype(np.uint8 if rows.max() < 256 else np.uint16)).save(folder / "labels" / f"{stem}.png")
    return {"image": f"images/{stem}.jpg", "label": f"labels/{stem}.png"}


def read_mixture(path: Path) -> list[dict[str, Any]]:
    """Read the mixture of a YAML or JSON file that training takes as well.

    Raises:
        InputError: when the file is missing or holds none.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("mixture"), list):
        raise InputError(f"{path} holds no mixture: expected mixture: [{{dataset_dir: ..., weight: ...}}, ...]")
    return content["mixture"]


def main(argv: list[str] | None = None) -> int:
    """Run the command; give its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.pack", description=__doc__.splitlines()[0])
    parser.add_argument("mixture", type=Path, help="YAML file with the list mixture, as configs/pretrain.yaml takes it")
    parser.add_argument("output_dir", type=Path, help="new folder for the copies")
    parser.add_argument("--longest", type=int, default=320, help="pixels of a picture's longer side")
    parser.add_argument("--quality", type=int, default=85, help="of JPEG, 1 to 100")
    args = parser.parse_args(argv)
    try:
        if args.longest < 1 or not 1 <= args.quality <= 100:
            raise InputError(f"--longest is at least 1 and --quality 1 to 100, got {args.longest} and {args.quality}")
        copies = pack(read_mixture(args.mixture), args.output_dir, args.longest, args.quality)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    relative = [{**part, "dataset_dir": str(args.output_dir / part["dataset_dir"])} for part in copies]
    (args.output_dir / "mixture.yaml").write_text(yaml.safe_dump({"mixture": relative}, sort_keys=False))
    size = sum(path.stat().st_size for path in args.output_dir.rglob("*") if path.is_file())
    print(f"{size / 2**20:.1f} MiB in {len(copies)} data sets; train with {args.output_dir}/mixture.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
