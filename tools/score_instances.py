# SPDX-License-Identifier: Apache-2.0
"""Compare instance maps with labels: recall, precision, Dice and panoptic quality at IoU above 0.5.

    python -m tools.score_instances eval/everything data/nuclei/labels --json scores.json

Each ``<name>_mask`` is compared with the label file of the same name. Two instances match when their IoU is above 0.5,
which no third can reach with either (Kirillov et al., "Panoptic Segmentation", 2019).
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scripts.data.listing import image_suffix
from scripts.errors import InputError
from scripts.io.reading import LoadCheckedImaged, label_values

MATCHING_IOU = 0.5
COLUMNS = {  # of the table, and how each is written
    **dict.fromkeys(("image", "labelled", "predicted", "matched"), ""),
    **dict.fromkeys(("recall", "precision", "dice", "pq"), ".3f"),
    "seconds": ".1f",
}


def matched_ious(predicted: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return the IoU of each pair of a predicted and a labelled instance that match.

    Args:
        predicted: integers of any shape, 0 is background, each other value an instance.
        labelled: of the same shape.

    Returns:
        (matches) in 0.5..1. MONAI's compute_panoptic_quality gives no more than their sum, and so no Dice.
    """
    _, labels = np.unique(np.append(labelled, 0), return_inverse=True)  # with a background, so that 0 stays 0
    _, predictions = np.unique(np.append(predicted, 0), return_inverse=True)
    labels, predictions = labels[:-1], predictions[:-1]
    shape = (labels.max(initial=0) + 1, predictions.max(initial=0) + 1)
    overlap = np.bincount(np.ravel_multi_index((labels, predictions), shape), minlength=shape[0] * shape[1])
    overlap = overlap.reshape(shape)  # pixels of each pair
    iou = overlap / (overlap.sum(1, keepdims=True) + overlap.sum(0, keepdims=True) - overlap).clip(1)
    return iou[1:, 1:][iou[1:, 1:] > MATCHING_IOU]


def measures(labelled: int, predicted: int, ious: np.ndarray) -> dict[str, int | float]:
    """Compute all measures from the numbers of instances and the IoU of the matches; NaN where nothing can be said.

    Args:
        labelled: number of instances in the label.
        predicted: number of instances in the prediction.
        ious: of the matches.
    """
    return {
        "labelled": labelled,
        "predicted": predicted,
        "matched": len(ious),
        "recall": len(ious) / labelled if labelled else math.nan,
        "precision": len(ious) / predicted if predicted else math.nan,
        "dice": float((2 * ious / (1 + ious)).mean()) if len(ious) else math.nan,
        "pq": float(ious.sum() / ((labelled + predicted) / 2)) if labelled + predicted else math.nan,
    }


def find_pairs(predictions: Path, labels: Path) -> list[tuple[str, Path, Path]]:
    """List name, mask and label of each prediction.

    Args:
        predictions: folder of masks.
        labels: folder of labels.

    Raises:
        InputError: when a folder does not exist or holds nothing, or a prediction has no label.
    """
    for folder in (predictions, labels):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: give the folder of predictions and that of labels")
    by_name = {stem(path): path for path in sorted(labels.iterdir()) if image_suffix(path)}
    masks = [path for path in sorted(predictions.iterdir()) if image_suffix(path) and stem(path).endswith("_mask")]
    if not masks:
        raise InputError(f"{predictions} holds no <name>_mask files: give the output_dir of a prediction")
    pairs = [(stem(mask).removesuffix("_mask"), mask) for mask in masks]
    absent = [name for name, _ in pairs if name not in by_name]
    if absent:
        raise InputError(f"{labels} holds no label of {', '.join(absent[:3])} ({len(absent)} of {len(pairs)} missing)")
    return [(name, mask, by_name[name]) for name, mask in pairs]


def stem(path: Path) -> str:
    """Return a file's name without its suffix, which may be .nii.gz."""
    return path.name.removesuffix(image_suffix(path) or path.suffix)


def read_instances(path: Path) -> np.ndarray:
    """Read an instance map of integers."""
    return np.asarray(label_values(LoadCheckedImaged("label", label=True)({"label": path})["label"])).astype(np.int64)


def score(name: str, mask: Path, label: Path) -> tuple[dict, np.ndarray]:
    """Score one image, and give its measures, with the seconds of its prediction if noted, and the IoU of the matches.

    Args:
        name: of the image.
        mask: the prediction's file.
        label: the label's file.

    Raises:
        InputError: when a file cannot be read or the two differ in size.
    """
    predicted, labelled = read_instances(mask), read_instances(label)
    if predicted.shape != labelled.shape:
        raise InputError(
            f"{mask} is {predicted.shape[1:]} but {label} is {labelled.shape[1:]}: give those of one image"
        )
    ious = matched_ious(predicted, labelled)
    wanted, found = (len(np.setdiff1d(each, [0])) for each in (labelled, predicted))
    report = mask.with_name(f"{name}_prediction.json")
    noted = json.loads(report.read_text()).get("seconds") if report.is_file() else None
    return {"image": name, **measures(wanted, found, ious), "seconds": math.nan if noted is None else noted}, ious


def summarise(rows: Sequence[dict], ious: Sequence[np.ndarray]) -> dict[str, str | int | float]:
    """Compute the measures of all instances of all images together, and the mean of the seconds that are noted.

    Args:
        rows: measures of each image.
        ious: of the matches.
    """
    labelled, predicted = (sum(row[column] for row in rows) for column in ("labelled", "predicted"))
    seconds = [row["seconds"] for row in rows if not math.isnan(row["seconds"])]
    mean = sum(seconds) / len(seconds) if seconds else math.nan
    return {"image": "all", **measures(labelled, predicted, np.concatenate(ious)), "seconds": mean}


def table(rows: Sequence[dict]) -> str:
    """Write the rows as Markdown, with a dash for what cannot be said."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for row in rows:
        lines.append(["-" if row[c] != row[c] else format(row[c], form) for c, form in COLUMNS.items()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.score_instances", description=__doc__.splitlines()[0])
    parser.add_argument("predictions", type=Path, help="folder of <name>_mask files, the output_dir of a prediction")
    parser.add_argument("labels", type=Path, help="folder of instance labels, 0 is background")
    parser.add_argument("--json", type=Path, help="file to write the figures to as well")
    args = parser.parse_args(argv)
    try:
        if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
            raise InputError(f"--json {args.json} is a folder, or lies in one that does not exist: give a file")
        scored = [score(*pair) for pair in find_pairs(args.predictions, args.labels)]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = [row for row, _ in scored]
    total = summarise(rows, [ious for _, ious in scored])
    print(table([*rows, total]))
    if args.json:
        plain = [{key: None if value != value else value for key, value in row.items()} for row in [*rows, total]]
        args.json.write_text(json.dumps({"images": plain[:-1], "all": plain[-1]}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
