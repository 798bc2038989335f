# SPDX-License-Identifier: Apache-2.0
"""What an evaluation measured, in tables: a row for each object, means over objects, images, sizes and classes.

A column is a metric with one value for each row, NaN where it does not apply. Names are flat: measure, then kind of
prompt or threshold, then the group that a mean is over, such as ``dice/box/small``.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..prompts.case_id import SIZES, UNION_OBJECT

MOST_CLASSES = 10  # more names than this are instances, not classes
TABLE = {  # of the log: a line for each kind of prompt
    "Dice": "dice/{}",
    "by image": "dice_by_image/{}",
    "by group": "dice_by_group/{}",
    "floor": "dice_floor/{}",
    "IoU": "iou/{}",
    "IoU error": "iou_error/{}",
    **{size: f"dice/{{}}/{size}" for size in SIZES},
}
Columns = Mapping[str, np.ndarray]
Report = dict[str, float | None]  # None where nothing could be measured


@dataclass(frozen=True)
class ObjectRow:
    """What was asked for: an object, or everything on a slice."""

    image: str
    slice: int | None  # nothing for a whole volume
    object: str
    area: float  # pixels, or voxels of a volume
    group: str | None = None  # such as the patient


def list_rows(cases: Sequence[Mapping]) -> list[ObjectRow]:
    """List what was asked for, from the cases of :class:`scripts.data.ObjectDataset` in the order of evaluation."""
    return [
        ObjectRow(case["image"], case["slice"], name, area, case.get("group"))
        for case in cases
        for name, area in zip(case["objects"], case["areas"], strict=True)
    ]


def align(details: Mapping[str, np.ndarray], rows: Sequence[ObjectRow]) -> dict[str, np.ndarray]:
    """Bring the values of metrics to the rows that they are of.

    Args:
        details: for each metric, its values of the objects, or of everything on each slice where it ends in
            ``/whole``; one that has another number of values is left out.
        rows: all of them.

    Returns:
        The columns.
    """
    everything = np.array([row.object == UNION_OBJECT for row in rows], bool)
    columns = {}
    for name, values in details.items():
        # classes that are asked for together are objects to the prompt of the whole image too
        asked = everything if name.endswith("/whole") and everything.any() else ~everything
        if values.size == asked.sum():
            columns[name] = np.full(len(rows), np.nan)
            columns[name][asked] = values.reshape(-1)
    return columns


def size_groups(rows: Sequence[ObjectRow]) -> tuple[dict[str, np.ndarray], list[float]]:
    """Part the rows by terciles of their area; equal areas stay together, and what is absent has no size.

    Objects are compared with objects, and everything on a slice with everything on other slices.

    Returns:
        For each size, which rows it is of; and the largest areas of a small and of a medium object, in pixels.
    """
    areas = np.array([row.area for row in rows], float)
    everything = np.array([row.object == UNION_OBJECT for row in rows], bool)
    size = np.full(len(rows), -1)
    limits: list[float] = []
    for alike in (everything & (areas > 0), ~everything & (areas > 0)):
        limits = np.quantile(areas[alike], [1 / 3, 2 / 3], method="lower").tolist() if alike.any() else []
        size[alike] = np.searchsorted(limits, areas[alike])
    return {name: size == i for i, name in enumerate(SIZES)}, limits  # the last limits are those of objects


def class_groups(rows: Sequence[ObjectRow]) -> dict[str, np.ndarray]:
    """Part the objects by name, where the names are few enough to be classes."""
    names = list(dict.fromkeys(row.object for row in rows if row.object != UNION_OBJECT))
    if not 1 < len(names) <= MOST_CLASSES:
        return {}
    return {name: np.array([row.object == name for row in rows]) for name in names}


def summarize(metrics: Mapping[str, object], columns: Columns, rows: Sequence[ObjectRow]) -> Report:
    """Collect all means under flat names.

    Args:
        metrics: of the evaluator; those that are no numbers are left out.
        columns: of :func:`align`.
        rows: of them.

    Returns:
        The metrics as they are named; the mean over images of each image's mean with ``_by_image`` behind the measure,
        and the mean over groups with ``_by_group``; the means over sizes and classes behind the name;
        ``area_limit/small`` and ``area_limit/medium``, the largest areas of such objects; and how many ``objects``,
        ``images`` and ``groups`` there are.
    """
    report: Report = {name: _number(value) for name, value in metrics.items() if isinstance(value, (int, float))}
    sizes, limits = size_groups(rows)
    parts = {**sizes, **class_groups(rows)}
    units = {"image": [row.image for row in rows]}
    groups = [row.group for row in rows if row.group is not None]
    if rows and len(groups) == len(rows):
        units["group"] = groups
    for name, values in columns.items():
        measure, slash, prompt = name.partition("/")
        for unit, owners in units.items():
            report[f"{measure}_by_{unit}{slash}{prompt}"] = _number(_mean(_means_of(values, owners)))
        for part, chosen in parts.items():
            if not np.isnan(values[chosen]).all():
                report[f"{name}/{part}"] = _mean(values[chosen])
    report.update({f"area_limit/{size}": limit for size, limit in zip(SIZES, limits)})
    report["objects"] = sum(row.object != UNION_OBJECT for row in rows)
    report.update({f"{unit}s": len(set(owners)) for unit, owners in units.items()})
    return report


def write_rows(path: Path, columns: Columns, rows: Sequence[ObjectRow]) -> None:
    """Write a CSV file with a line for each row, blank where a metric does not apply.

    Args:
        path: of the file.
        columns: in their order.
        rows: values by column.
    """
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "slice", "object", "area", *columns])
        for i, row in enumerate(rows):
            values = ("" if math.isnan(column[i]) else f"{column[i]:.6f}" for column in columns.values())
            writer.writerow([row.image, row.slice, row.object, row.area, *values])


def format_table(report: Report, names: Sequence[str]) -> list[str]:
    """Set the report in lines: a table of the kinds of prompt, then the scalars that are not in it.

    Args:
        report: of :func:`summarize`.
        names: of the evaluator's metrics, in the order in which they are shown.
    """
    kinds = list(dict.fromkeys(name.split("/")[1] for name in names if re.match(r"(dice|iou)/", name)))
    width = max(map(len, [*kinds, "prompt"]))
    table = {title: key for title, key in TABLE.items() if any(key.format(kind) in report for kind in kinds)}
    lines = [f"  {'prompt':{width}}" + "".join(f"{title:>11}" for title in table)] if kinds else []
    for kind in kinds:
        cells = [report.get(key.format(kind)) for key in table.values()]
        lines.append(f"  {kind:{width}}" + "".join(f"{_show(cell):>11}" for cell in cells))
    shown = {key.format(kind) for kind in kinds for key in TABLE.values()}
    scalars = [*(name for name in names if name in report and name not in shown), *_counts(report)]
    width = max(map(len, scalars))
    return lines + [f"  {name:{width}}  {_show(report[name])}" for name in scalars]


def dice_by_clicks(report: Report) -> tuple[list[int], dict[str, list[float]]]:
    """Find the Dice after each number of clicks that was scored.

    Returns:
        The numbers of clicks; and the Dice of each line to draw, of all objects and of each size that there is.
    """
    clicks = sorted(int(name.removeprefix("dice/click_")) for name in report if re.fullmatch(r"dice/click_\d+", name))
    endings = {"all": "", **{size: f"/{size}" for size in SIZES}}
    curves = {}
    for line, end in endings.items():
        values = [report.get(f"dice/click_{n}{end}") for n in clicks]
        measured = [value for value in values if value is not None]
        if len(measured) == len(clicks):
            curves[line] = measured
    return clicks, curves


def _counts(report: Report) -> list[str]:
    return [name for name in report if name.startswith("area_limit/")] + [
        name for name in ("objects", "images", "groups") if name in report
    ]


def _means_of(values: np.ndarray, owners: Sequence[str]) -> np.ndarray:
    """Average the rows of each image or group."""
    scores: dict[str, list[float]] = {}
    for owner, value in zip(owners, values):
        scores.setdefault(owner, []).append(value)
    return np.array([_mean(np.array(own)) for own in scores.values()])


def _mean(values: np.ndarray) -> float:
    """Average what applies; NaN where nothing does."""
    applies = values[~np.isnan(values)]
    return float(applies.mean()) if len(applies) else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _show(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
