# SPDX-License-Identifier: Apache-2.0
"""Metrics of an evaluator by name: what is measured, of which prompts."""

from collections.abc import Callable, Sequence

from monai.metrics import CumulativeIterationMetric, DiceMetric, MAEMetric, MeanIoU, SurfaceDiceMetric

from .interaction import (
    BackgroundFlips,
    ClickCurveArea,
    ClickFailures,
    NumberOfClicks,
    SelectClickTrace,
    SelectPredictedIoU,
)
from .selectors import ObjectMetric, SelectPromptKind
from .shape_baselines import PromptShapeBaseline
from .threshold_average import ThresholdAverage
from .volumes import MeanSeconds, SelectSeconds, SlicesBeyond, SurfaceDiceInMillimetres

SURFACE_TOLERANCE = 2.0  # pixels, or mm of volumes
Make = Callable[[], CumulativeIterationMetric]
OF_KIND: dict[str, tuple[Make, Callable]] = {  # measures of a kind of prompt: the metric, and what it is given
    "dice": (lambda: DiceMetric(ignore_empty=False), SelectPromptKind),
    "iou": (lambda: MeanIoU(ignore_empty=False), SelectPromptKind),
    "nsd": (lambda: SurfaceDiceMetric([SURFACE_TOLERANCE], include_background=True), SelectPromptKind),
    "nsd_mm": (lambda: SurfaceDiceInMillimetres(SURFACE_TOLERANCE), SelectPromptKind),
    "slices_past": (SlicesBeyond, SelectPromptKind),
    "slices_short": (lambda: SlicesBeyond(short=True), SelectPromptKind),
    "seconds": (MeanSeconds, SelectSeconds),
    "iou_error": (MAEMetric, SelectPredictedIoU),
    "dice_5_thresholds": (lambda: ThresholdAverage("dice"), lambda kind: SelectPromptKind(kind, probability=True)),
    "iou_5_thresholds": (lambda: ThresholdAverage("iou"), lambda kind: SelectPromptKind(kind, probability=True)),
}
OF_CLICKS = {"noc": NumberOfClicks, "failures": ClickFailures}  # measures of a session, by the IoU to reach in percent


def make_metrics(
    floor_diameter: float | None = None, background_flips: bool = False, **wanted: Sequence[str | int]
) -> dict[str, ObjectMetric]:
    """Declare metrics of an evaluator that runs a simulator of :mod:`scripts.engines`.

    All are means over objects, at threshold 0.5 on the image's own grid, but for the ``*_5_thresholds``.

    Args:
        floor_diameter: of the disc, in pixels, that ``dice_floor`` of a click is.
        background_flips: also the share of background clicks that were obeyed.
        wanted: for each measure a list of what it is of.

            - ``dice``, ``iou``, ``nsd`` (normalised surface Dice within 2 pixels), ``dice_floor`` (of the obvious
              shape: the ellipse in a box, a disc around a click), ``iou_error`` (mean absolute error of the predicted
              IoU), ``dice_5_thresholds`` and ``iou_5_thresholds`` (the protocol of Medical-SAM-Adapter's tables): kinds
              of prompt.
            - of volumes ``nsd_mm`` (surface Dice within 2 mm), ``slices_past`` (on which the mask runs past the ends of
              the object), ``slices_short`` (on which it stops before them) and ``seconds`` (of the first answer): kinds
              of prompt.
            - ``noc`` (clicks until an IoU is reached) and ``failures`` (share of objects that never reach it): IoU in
              percent.
            - ``auc`` (area under the curve of Dice over the clicks that follow a box): ``box_N_clicks``.

    Returns:
        Handlers by name, such as ``dice/click_1`` and ``noc/90``.

    Raises:
        ValueError: when there is no such measure.
    """
    metrics = {}
    for measure, of in wanted.items():
        for what in of:
            name = f"{measure}/{what}"
            if measure in OF_KIND:
                make, select = OF_KIND[measure]
                metrics[name] = ObjectMetric(make(), output_transform=select(str(what)))
            elif measure == "dice_floor":
                diameter = floor_diameter if str(what).startswith("click") else None
                metrics[name] = ObjectMetric(
                    OF_KIND["dice"][0](), output_transform=PromptShapeBaseline(str(what), diameter)
                )
            elif measure in OF_CLICKS:
                metrics[name] = ObjectMetric(OF_CLICKS[measure](int(what) / 100), output_transform=SelectClickTrace())
            elif measure == "auc":
                metrics[name] = ObjectMetric(ClickCurveArea(), output_transform=SelectClickTrace("box_trace"))
            else:
                known = ", ".join([*OF_KIND, "dice_floor", *OF_CLICKS, "auc"])
                raise ValueError(f"a measure is one of {known}, got {measure!r}")
    if background_flips:
        metrics["background_flips"] = ObjectMetric(BackgroundFlips(), output_transform=SelectClickTrace("flips"))
    return metrics
