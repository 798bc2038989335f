# SPDX-License-Identifier: Apache-2.0
"""The comparison figure of Ti and S."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.compare import main
from scripts.errors import InputError
from scripts.networks import EfficientSAM

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, and a checkpoint of each backbone."""
    folder = tmp_path_factory.mktemp("compare")
    pixels = np.random.RandomState(0).randint(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    for backbone in ("vitt", "vits"):
        torch.manual_seed(0)
        torch.save({"model": EfficientSAM(backbone, 64).state_dict()}, folder / f"{backbone}.pth")
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    weights = ["--vitt", str(folder / "vitt.pth"), "--vits", str(folder / "vits.pth")]
    return [str(folder / "picture.png"), *weights, "--image-size", "64", "--output", str(folder / "out.png"), *more]


def test_points_and_box_give_two_rows_of_three_panels(folder: Path):
    main(arguments(folder, "--points", "[[30,20,1],[5,5,0]]"))
    one_row = np.array(Image.open(folder / "out.png"))
    main(arguments(folder, "--points", "[[30,20,1],[5,5,0]]", "--boxes", "[[10,10,40,40]]"))
    two_rows = np.array(Image.open(folder / "out.png"))
    assert two_rows.shape[1] == one_row.shape[1]
    assert two_rows.shape[0] > 1.8 * one_row.shape[0]
    thirds = np.array_split(one_row[:, 8:-8], 3, axis=1)
    assert all(panel.std() > 10 for panel in thirds)


@pytest.mark.parametrize(
    "more, words",
    [
        (["--points", "[[300,20,1]]"], "outside the image of 64 x 48"),
        (["--boxes", "[[10,10,10,40]]"], "no area"),
        (["--points", "[[1,1,1]]", "--vits", "absent.pth"], "no weights at absent.pth"),
    ],
)
def test_bad_input_is_told_in_one_sentence(folder: Path, more: list[str], words: str):
    with pytest.raises(InputError, match=words) as caught:
        main(arguments(folder, *more))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_command_without_weights_of_s_says_how_to_get_them(folder: Path):
    if any((ROOT / "models").glob("efficient_sam_vits*.pth")):
        pytest.skip("weights of S are here")
    command = [sys.executable, "-m", "scripts.compare", str(folder / "picture.png"), "--points", "[[3,4,1]]"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "error: there are no weights of efficientsam_vits" in result.stderr
    assert "Traceback" not in result.stderr
