# SPDX-License-Identifier: Apache-2.0
"""Draw prompt, EfficientSAM-Ti and EfficientSAM-S side by side, one row for points and one for a box.

python -m scripts.compare lesion.png --points "[[120,96,1]]" --boxes "[[60,40,200,170]]" --output compare.png
"""

import argparse
import ast
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from .errors import InputError
from .inferers import PromptedSliceInferer
from .io.axes import upright
from .networks import EfficientSAM, find_weights, load
from .networks.registry import MODELS, SHORT_NAMES
from .prompts.form import Prompt, pad_prompts, read_entries
from .reports.overlays import overlay, panels, to_uint8
from .transforms import LoadCheckedImaged, RequestPromptsd, ToRGBd

SHORT = {full: short for short, full in SHORT_NAMES.items()}
TITLES = {SHORT.get(name, name): model.title for name, model in MODELS.items()}


def load_network(model: str, path: str, image_size: int | None) -> EfficientSAM:
    """Build the network that a checkpoint describes, and load it.

    Args:
        model: its name in segment-anything.
        path: of its weights.
        image_size: of its own grid in pixels.
    """
    return load(path, model=model, image_size=image_size).eval()


def draw_row(image: MetaTensor, networks: dict[str, EfficientSAM], **prompts: Any) -> list[np.ndarray]:
    """Draw the prompt alone, then each network's answer to it.

    Args:
        image: (C, X, Y[, Z]) as read.
        networks: by name.
        prompts: ``points``, ``boxes`` and ``slice`` as in :func:`scripts.prompts.form.read_prompts`, all on one slice.

    Returns:
        One (H, W, 3) uint8 picture for the prompt and one for each network.
    """
    item: dict[Hashable, Any] = {"image": image.clone()}
    item.update(prompts)
    data = ToRGBd("image")(RequestPromptsd()(item))
    entries = read_entries(data["image"]) or []
    slices = {entry["slice"] for entry in entries}
    if len(slices) > 1:
        raise InputError("compare draws one slice: give prompts on one")
    k = slices.pop()

    def on_slice(array: np.ndarray) -> np.ndarray:
        return upright(array[..., k] if array.ndim == 4 else array)  # (C, X, Y[, Z]) -> (C, H, W)

    picture = to_uint8(on_slice(np.asarray(data["image"])))
    points, point_labels = pad_prompts([Prompt.of(entry) for entry in entries])
    pictures = [overlay(picture, points=points, point_labels=point_labels)]
    for network in networks.values():
        with torch.no_grad():
            labels = PromptedSliceInferer(merge=True)(data["image"][None], network)[0]
        pictures.append(overlay(picture, on_slice(np.asarray(labels))[0], points, point_labels))
    return pictures


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.compare", description=__doc__.splitlines()[0])
    parser.add_argument("image", help="a picture or a volume")
    parser.add_argument("--points", type=ast.literal_eval, help="[[x, y, label], ...]: label 1 object, 0 background")
    parser.add_argument("--boxes", type=ast.literal_eval, help="[[x0, y0, x1, y1], ...]")
    parser.add_argument("--slice", type=int, help="of a volume")
    parser.add_argument(
        "--image-size", type=int, help="the networks' own grid (default: as trained, else 256; upstream's is 1024)"
    )
    for name, title in TITLES.items():
        usual = "the best in models/" if name in SHORT_NAMES else "leave it out"
        parser.add_argument(f"--{name}", metavar="PATH", help=f"weights of {title} (default: {usual})")
    parser.add_argument("--output", default="compare.png", help="PNG to write (default compare.png)")
    arguments = parser.parse_args(argv)
    if arguments.points is None and arguments.boxes is None:
        parser.error("give --points, --boxes, or both")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parse_arguments(argv)
    networks = {}
    for name in TITLES:
        path = getattr(arguments, name)
        if path is not None or name in SHORT_NAMES:
            path = path or find_weights(Path(__file__).parents[1] / "models", name)
            networks[name] = load_network(name, path, arguments.image_size)
    image = LoadCheckedImaged("image")({"image": arguments.image})["image"]
    pictures: list[np.ndarray] = []
    titles: list[str] = []
    for kind in ("points", "boxes"):
        if getattr(arguments, kind) is not None:
            pictures += draw_row(image, networks, **{kind: getattr(arguments, kind)}, slice=arguments.slice)
            titles += [kind, *(TITLES[name] for name in networks)]
    Image.fromarray(panels(pictures, titles, columns=1 + len(networks))).save(arguments.output)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
