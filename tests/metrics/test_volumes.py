# SPDX-License-Identifier: Apache-2.0
"""Metrics of volumes on masks whose distance and ends are known."""

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from scripts.metrics import make_metrics
from scripts.metrics.volumes import SlicesBeyond, SurfaceDiceInMillimetres


def slab(first, last, depth=12, spacing=(1.0, 1.0, 1.0)):
    mask = torch.zeros(1, 6, 6, depth)
    mask[:, 1:5, 1:5, first : last + 1] = 1
    return MetaTensor(mask, affine=torch.diag(torch.tensor([*spacing, 1.0])))


@pytest.mark.parametrize(
    ("found", "past", "short"),
    [((3, 8), 0, 0), ((1, 9), 3, 0), ((4, 6), 0, 3), ((2, 6), 1, 2), ((9, 11), 3, 6), (None, 0, 6)],
    ids=str,
)
def test_slices_past_the_ends_and_short_of_them_are_counted(found, past, short):
    mask = slab(*found) if found else torch.zeros(1, 6, 6, 12)
    for metric, expected in ((SlicesBeyond(), past), (SlicesBeyond(short=True), short)):
        metric([mask], [slab(3, 8)])
        assert float(metric.aggregate()) == expected


@pytest.mark.parametrize(("distance", "good"), [(1.0, True), (2.0, True), (2.5, False)])
def test_surfaces_are_compared_in_millimetres(distance, good):
    metric = SurfaceDiceInMillimetres(2.0)
    spacing = (1.0, 1.0, distance)
    metric([slab(3, 8, spacing=spacing)], [slab(3, 9, spacing=spacing)])
    assert (float(metric.aggregate()) == 1) == good


def test_a_target_that_lies_nowhere_is_refused():
    with pytest.raises(ValueError, match="need a target with an affine"):
        SurfaceDiceInMillimetres(2.0)([slab(3, 8).as_tensor()], [slab(3, 9).as_tensor()])


def test_metrics_of_volumes_by_name():
    wanted = {"dice": ["click"], "nsd_mm": ["click"], "slices_past": ["click"], "slices_short": ["box"]}
    metrics = make_metrics(**wanted, seconds=["box"])
    truth, found = slab(3, 8), slab(2, 8)
    output = [
        {
            "pred": {"masks": {"click": found > 0, "box": truth > 0}, "seconds": {"box": torch.tensor([1.5])}},
            "label": truth,
        }
    ]
    engine = Engine(lambda engine, batch: batch)
    for name, metric in metrics.items():
        metric.attach(engine, name)
    engine.run([output])
    values = engine.state.metrics
    assert values["slices_past/click"] == 1 and values["slices_short/box"] == 0 and values["seconds/box"] == 1.5
    assert 0.9 < values["dice/click"] < 1 and values["nsd_mm/click"] == 1
