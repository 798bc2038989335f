# SPDX-License-Identifier: Apache-2.0
"""The REFUGE challenge (Orlando et al., 2020): fundus photographs whose optic disc and cup several raters have drawn.

The layout is that of the release with every rater's masks, ``Training-400/<name>/`` and the like with ``<name>.jpg``,
``<name>_seg_disc_1.png``, ``<name>_seg_cup_1.png`` and so on, 0 and 255.
"""

import logging
import re
from pathlib import Path

from ..errors import InputError
from .listing import Datalist, Pair, existing_folder, split_pairs

logger = logging.getLogger(__name__)

TRAINING, VALIDATION, TEST = "Training-400", "Validation-400", "Test-400"
CLASSES = ("disc", "cup")  # ids 1 and 2; the cup lies inside the disc


def is_refuge(root: Path) -> bool:
    """Return whether a folder holds this release."""
    return (root / TRAINING).is_dir()


def refuge_datalist(
    dataset_dir: str, val_fraction: float = 0.2, seed: int = 0, group_by: str | None = None
) -> Datalist:
    """List REFUGE with the masks of all raters.

    It validates on ``Validation-400`` where that has masks, else on ``Test-400``, as Medical-SAM-Adapter does.

    Args:
        dataset_dir: the folder that holds ``Training-400``.
        val_fraction: share of the training images that validates where no validation or test masks are present.
        seed: of that split.
        group_by: pattern of the images that stay together in it.

    Returns:
        Items whose label is ``[[disc_1, ..., disc_n], [cup_1, ..., cup_n]]``, the paths of n raters; one that lacks a
        mask of another's is listed with it, so that it is named when the files are checked.

    Raises:
        InputError: when there is no training image with masks.
    """
    root = existing_folder(dataset_dir)
    found = {name: _list_cases(root / name) for name in (TRAINING, VALIDATION, TEST)}
    if not found[TRAINING]:
        raise InputError(
            f"{root} has no masks {TRAINING}/<name>/<name>_seg_disc_1.png and <name>_seg_cup_1.png: give the folder "
            "that holds the REFUGE release with every rater's masks"
        )
    held = found[VALIDATION] or found[TEST]
    return split_pairs(found[TRAINING], val_fraction, seed, held, group_by, found[TEST])


def _list_cases(folder: Path) -> list[Pair]:
    """List the images of one part that have masks."""
    pairs: list[Pair] = []
    alone = []
    for case in sorted(path for path in folder.glob("*") if path.is_dir()):
        masks = re.compile(re.escape(case.name) + rf"_seg_(?:{'|'.join(CLASSES)})_(\d+)\.png")
        raters = [int(match[1]) for path in case.iterdir() if (match := masks.fullmatch(path.name))]
        if raters:
            label = [[f"{case / case.name}_seg_{c}_{n}.png" for n in range(1, max(raters) + 1)] for c in CLASSES]
            pairs.append({"image": f"{case / case.name}.jpg", "label": label})
        else:
            alone.append(case.name)
    if alone:
        logger.warning(f"{folder}: left out {len(alone)} images without masks of disc and cup: {', '.join(alone[:5])}")
    return pairs
