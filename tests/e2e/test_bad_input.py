# SPDX-License-Identifier: Apache-2.0
"""What a user gets wrong ends in one line that says so, not in a traceback."""

import numpy as np
import pytest
import torch

from tests.e2e.bundle import SMALL, TRAIN, places, run, run_warm
from tests.e2e.datasets import make_cells, make_decathlon, make_folder
from tests.files import write_nifti, write_picture

pytestmark = pytest.mark.slow


def absent_folder(folder):
    return {"dataset_dir": folder / "absent"}


def unknown_layout(folder):
    (folder / "data").mkdir()
    return {"dataset_dir": folder / "data"}


def mismatched_pair(folder):
    data = make_folder(folder / "data", count=1)
    write_picture(data / "labels" / "case_0_mask.png", np.ones((32, 48), np.uint8))
    return {"dataset_dir": data}


def empty_labels(folder):
    data = make_folder(folder / "data", count=3)
    for path in (data / "labels").iterdir():
        write_picture(path, np.zeros((64, 64), np.uint8))
    return {"dataset_dir": data}


def nan_pixels(folder):
    data = make_decathlon(folder / "data", count=1)
    volume = np.zeros((48, 40, 4), np.float32)
    volume[3, 4, 2] = np.nan
    write_nifti(data / "imagesTr" / "volume_0.nii.gz", volume)
    return {"dataset_dir": data}


def unreadable_image(folder):
    data = make_folder(folder / "data", count=1)
    (data / "images" / "case_0.png").write_text("not a picture")
    return {"dataset_dir": data}


def absent_classes(folder):
    return {"dataset_dir": make_cells(folder / "data"), "classes": "{'tumour': [7]}"}


def bad_fraction(folder):
    return {"dataset_dir": make_folder(folder / "data", count=2), "val_fraction": 1.5}


def save_weights(path, width):
    torch.save({"model": {"image_encoder.pos_embed": torch.zeros(1, 197, width)}}, path)
    return path


def other_backbone(folder):
    weights = save_weights(folder / "s.pt", 384)
    return {"dataset_dir": make_folder(folder / "data", count=1), "pretrained": weights, "backbone": "vitt"}


def half_a_checkpoint(folder):
    path = save_weights(folder / "half.pt", 192)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return {"dataset_dir": make_folder(folder / "data", count=1), "pretrained": path}


def absent_resume(folder):
    return {"dataset_dir": make_folder(folder / "data", count=2), "resume_path": folder / "absent.pt"}


def half_a_resume(folder):
    path = half_a_checkpoint(folder)["pretrained"]
    return {"dataset_dir": folder / "data", "resume_path": path}


def weights_as_resume(folder):
    path = save_weights(folder / "model.pt", 192)
    return {"dataset_dir": make_folder(folder / "data", count=2), "resume_path": path}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (unknown_layout, "data has no layout that is known"),
        (mismatched_pair, "case_0.png is 64 x 64 but its label"),
        (empty_labels, "no usable object"),
        (nan_pixels, "volume_0.nii.gz holds 1 pixels that are NaN"),
        (unreadable_image, "case_0.png cannot be read as an image"),
        (absent_classes, "no usable object of the classes {'tumour': [7]}"),
        (bad_fraction, "val_fraction is at least 0 and below 1, got 1.5"),
        (other_backbone, "s.pt holds efficientsam_vits but the network is efficientsam_vitt"),
        (half_a_checkpoint, "half.pt is not a readable PyTorch checkpoint"),
        (absent_resume, "absent.pt does not exist"),
        (half_a_resume, "half.pt is not a readable checkpoint"),
        (weights_as_resume, "model.pt holds no settings, optimizer"),
        (lambda folder: {"backbone": "vitx"}, "medsam_vitb, vitt, vits, got 'vitx'"),
        (lambda folder: {"image_size": 300}, "image_size is a positive multiple of 16, got 300"),
        (lambda folder: {"trainable": "['encoder']"}, "the network has no part 'encoder' to train"),
        (
            lambda folder: {"adapters": "[{'kind': 'lora2'}]"},
            "the kind of adapters is one of bottleneck, lora, adalora, got 'lora2'",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_input_is_one_line(folder, spoil, said):
    check(run_warm("training", TRAIN, **{**SMALL, **spoil(folder)}, **places(folder)), said)
    assert not list(folder.glob("models/*"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (absent_folder, "absent is not a folder"),
        (lambda folder: {"max_epoch": 3}, "--max_epoch is not a setting: did you mean --max_epochs?"),
    ],
    ids=["absent_folder", "mistyped"],
)
def test_bad_input_is_one_line_in_a_new_interpreter(folder, settings, said):
    check(run("training", TRAIN, **{**SMALL, **settings(folder)}, **places(folder)), said)


def check(result, said):
    assert result.code == 1
    assert len(result.errors) == 1, result.err
    assert said in result.errors[0]
    assert result.err.splitlines()[-1] == result.errors[0]  # the sentence is one line, and the last
    assert "Traceback" not in result.out + result.err


def test_bad_pairs_among_good_ones_are_named_and_the_rest_is_trained(folder):
    data = make_folder(folder / "data", count=6)
    write_picture(data / "labels" / "case_1_mask.png", np.ones((32, 48), np.uint8))
    write_picture(data / "labels" / "case_3_mask.png", np.zeros((64, 64), np.uint8))
    (data / "images" / "case_5.png").write_bytes((data / "images" / "case_5.png").read_bytes()[:500])
    result = run_warm("training", TRAIN, **SMALL, val_fraction=0, dataset_dir=data, **places(folder))
    assert result.code == 0, result.err
    left_out = [line for line in result.out.splitlines() if "left out: " in line]
    assert [name for name in range(6) if any(f"case_{name}" in line for line in left_out)] == [1, 3, 5]
    assert len(left_out) == 3
    assert "3 objects on 3 items of 3 images, 3 images left out" in result.out
    assert (folder / "models" / "model_final.pt").is_file()
