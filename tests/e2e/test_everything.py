# SPDX-License-Identifier: Apache-2.0
"""Everything mode as a user starts it, from a picture to instances, and the score of those."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.e2e.bundle import INFERENCE, ROOT, run_warm
from tests.e2e.datasets import picture
from tests.files import write_nifti, write_picture

pytestmark = pytest.mark.slow

EVERYTHING = [INFERENCE, "configs/everything.yaml"]
HEIGHT, WIDTH = 128, 192
WEIGHTS = {"ckpt_path": "models/efficient_sam_vitt_base.pth", "image_size": 256, "points_per_side": 8}


@pytest.fixture(scope="module")
def nuclei(shared):
    """Two pictures of bright discs, and their labels."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for name, discs in (("a", [(40, 40, 26), (140, 80, 30), (150, 20, 9)]), ("b", [(60, 70, 34)])):
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for number, (x, y, radius) in enumerate(discs, start=1):
            labels[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = number
        write_picture(shared / "nuclei" / "images" / f"{name}.png", picture(labels > 0))
        write_picture(shared / "nuclei" / "labels" / f"{name}.png", labels)
    return shared / "nuclei"


def test_instances_overlays_and_scores_come_of_a_folder(nuclei, folder):
    out = folder / "out"
    result = run_warm("inferring", EVERYTHING, dataset_dir=nuclei / "images", output_dir=out, **WEIGHTS)
    assert result.code == 0, result.err
    assert {path.name for path in out.iterdir()} == {
        f"{name}_{kind}" for name in "ab" for kind in ("mask.png", "objects.csv", "overlay.jpg", "prediction.json")
    }
    instances = np.asarray(Image.open(out / "a_mask.png"))
    assert instances.shape == (HEIGHT, WIDTH)
    report = json.loads((out / "a_prediction.json").read_text())
    assert report["seconds"] > 0
    with (out / "a_objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, entry in zip(rows, report["objects"], strict=True):
        assert [int(row[key]) for key in ("x0", "y0", "x1", "y1", "pixels")] == [*entry["box"], entry["area"]]
        assert float(row["predicted_iou"]) == entry["predicted_iou"]
    assert [entry["object"] for entry in report["objects"]] == list(range(instances.max()))
    for entry in report["objects"]:
        x0, y0, x1, y1 = entry["box"]
        inside = instances[y0 : y1 + 1, x0 : x1 + 1] == entry["object"] + 1
        assert entry["area"] == inside.sum() == (instances == entry["object"] + 1).sum()

    command = [sys.executable, "-m", "tools.score_instances", out, nuclei / "labels", "--json", folder / "scores.json"]
    scored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert scored.returncode == 0, scored.stderr
    total = json.loads((folder / "scores.json").read_text())["all"]
    assert total["labelled"] == 4
    assert total["predicted"] == sum(np.asarray(Image.open(out / f"{name}_mask.png")).max() for name in "ab") > 0
    assert total["seconds"] > 0


def test_settings_reach_the_inferer(nuclei, folder):
    where = {"dataset_dir": nuclei / "images" / "a.png", "output_dir": folder / "out"}
    result = run_warm("inferring", EVERYTHING, **where, **WEIGHTS, min_area=HEIGHT * WIDTH)
    assert result.code == 0, result.err
    assert not np.asarray(Image.open(folder / "out" / "a_mask.png")).any()
    assert json.loads((folder / "out" / "a_prediction.json").read_text())["objects"] == []


def test_a_volume_among_pictures_is_named_and_the_others_are_done(nuclei, folder):
    """The message said so, and nothing was done."""
    images = folder / "images"
    images.mkdir()
    for name in "ab":
        shutil.copy(nuclei / "images" / f"{name}.png", images / f"{name}{name}.png")
    write_nifti(images / "aa_volume.nii.gz", np.zeros((20, 30, 4), np.uint8))
    result = run_warm("inferring", EVERYTHING, dataset_dir=images, output_dir=folder / "out", **WEIGHTS)
    assert result.code == 1
    assert "1 of 3 images failed, the others are done" in result.errors[-1]
    assert f"{images}/aa_volume.nii.gz: slice None of a volume of 4" in result.errors[-1]
    assert all((folder / "out" / f"{name}_mask.png").is_file() for name in ("aa", "bb"))


def test_a_mask_that_cannot_be_written_is_named_and_the_others_are_done(nuclei, folder):
    (folder / "out" / "a_mask.png").mkdir(parents=True)
    result = run_warm("inferring", INFERENCE, dataset_dir=nuclei / "images", output_dir=folder / "out")
    assert result.code == 1
    assert "1 of 2 images failed, the others are done: " in result.errors[-1] and "a_mask.png" in result.errors[-1]
    assert (folder / "out" / "b_mask.png").is_file()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"points_per_side": 0}, "points_per_side is at least 1"),
        ({"slice": 4}, "slice 4 of a volume of 1"),
        ({"output_probability": True}, "output_probability is of what prompts ask for"),
    ],
    ids=["no_points", "no_slice", "no_prompts"],
)
def test_a_bad_request_is_one_line(nuclei, folder, settings, said):
    where = {"dataset_dir": nuclei / "images" / "a.png", "output_dir": folder / "out"}
    result = run_warm("inferring", EVERYTHING, **where, **{**WEIGHTS, **settings})
    assert result.code == 1
    assert len(result.errors) == 1, result.err
    assert said in result.errors[0]
