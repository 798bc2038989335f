# SPDX-License-Identifier: Apache-2.0
"""Predictions to files, beside what the runs of tests/e2e see."""

import csv
import threading

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from scripts.data.inputs import InputDataset, InputLoader
from scripts.handlers import PredictionSaver
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.form import write_entries
from scripts.reports.overlays import PALETTE
from scripts.transforms import ToRGB

LAYOUT = ClassLayout({"disc": [1, 2], "cup": [2]})


@pytest.mark.parametrize("layout", [None, LAYOUT])
def test_the_overlay_shows_what_the_table_lists(tmp_path, layout):
    """Of two classes that one prompt asked for, the inner one was a hole in the outer one."""
    meta = {"filename_or_obj": str(tmp_path / "a.png")}
    labels = torch.zeros(1, 600, 512, dtype=torch.uint8)  # X, Y
    labels[0, 100:300, 100:300], labels[0, 150:250, 150:250] = 1, 2
    image = MetaTensor(torch.full((3, 600, 512), 128, dtype=torch.uint8), meta=meta)
    labels = MetaTensor(labels, meta=dict(meta))
    points = {"points": [[110.0, 110.0]], "labels": [1], "predicted_iou": 0.5}
    write_entries(labels, [{"object": q, "slice": 0, **points} for q in range(1 if layout else 2)])
    PredictionSaver(str(tmp_path / "out"), loader=None, to_rgb=ToRGB(), layout=layout).save(image, labels, "a")
    rows = list(csv.DictReader((tmp_path / "out" / "a_objects.csv").open()))
    assert [row["id"] for row in rows] == ["1", "2"]
    picture = np.asarray(Image.open(tmp_path / "out" / "a_overlay.jpg")).astype(int)  # (H, W, 3)
    for row, colour in zip(rows, PALETTE.astype(int)):
        expected = 128 + 0.4 * (colour - 128)
        x, y = int(row["x1"]) - 20, int(row["y1"]) - 20
        np.testing.assert_allclose(picture[y, x], expected, atol=3)  # JPEG


@pytest.mark.parametrize("in_background", [True, False])
def test_a_background_thread_writes_only_where_it_is_asked_for(tmp_path, in_background):
    loader = InputLoader(InputDataset([{"image": "a.png"}], dict))
    saver, threads = PredictionSaver(str(tmp_path), loader, in_background=in_background), []
    saver.save_all = lambda pairs: threads.append((threading.current_thread(), pairs))
    engine = Engine(lambda engine, batch: ["found"])
    saver.attach(engine)
    engine.run([["a"], ["b"]])
    assert [pairs for _, pairs in threads] == [[("a", "found")], [("b", "found")]]
    assert all((thread is threading.main_thread()) != in_background for thread, _ in threads)
