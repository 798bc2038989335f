# SPDX-License-Identifier: Apache-2.0
"""Inference as a user starts it: prompts in, masks on the image's own grid out, and what a bad prompt says."""

import json

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from scripts.networks import Settings, build_network
from tests.e2e.bundle import INFERENCE, run, run_warm
from tests.e2e.datasets import make_decathlon, make_folder, picture
from tests.files import write_nifti, write_picture

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 64, 96  # lop-sided, so that x and y cannot be exchanged unseen


def ellipse(x, y):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return ((columns - x) / 14) ** 2 + ((rows - y) / 10) ** 2 < 1


LEFT, RIGHT = ellipse(20, 40), ellipse(70, 22)
LEFT_CLICK, RIGHT_CLICK = [20, 40, 1], [70, 22, 1]
RIGHT_BOX = [56, 12, 84, 32]


@pytest.fixture(scope="module")
def image(shared):
    return write_picture(shared / "infer" / "lesions.png", picture(LEFT | RIGHT))


def infer(folder, source, execute=run_warm, **settings):
    """Run inference with the weights that come with the bundle; give what it printed and the folder of results."""
    settings = {"dataset_dir": source, "output_dir": folder / "out", "cache_dir": folder / "cache", **settings}
    weights = "models/efficient_sam_vitt_base.pth"
    return execute("inferring", INFERENCE, ckpt_path=weights, image_size=256, **settings), folder / "out"


def read_mask(path):
    mask = np.asarray(Image.open(path))
    assert mask.dtype == np.uint8
    return mask


def lies_on(found, true):
    """Tell whether a mask covers an object as far as unfitted weights can: a wrong place covers nothing."""
    return (found & true).sum() > 0.3 * (found | true).sum()


def test_one_click_gives_mask_overlay_and_predicted_iou(folder, image):
    result, out = infer(folder, image, run, points=[RIGHT_CLICK])
    assert result.code == 0, result.err
    assert "Traceback" not in result.out + result.err
    assert sorted(path.name for path in out.iterdir()) == [
        "lesions_mask.png", "lesions_objects.csv", "lesions_overlay.jpg", "lesions_prediction.json"]  # fmt: skip
    mask = read_mask(out / "lesions_mask.png")
    assert Image.open(out / "lesions_mask.png").mode == "P"  # seen in any viewer
    assert mask.shape == (HEIGHT, WIDTH)
    assert set(np.unique(mask)) == {0, 1}
    assert lies_on(mask == 1, RIGHT)
    report = json.loads((out / "lesions_prediction.json").read_text())
    assert (report["mask"], report["overlays"]) == ("lesions_mask.png", ["lesions_overlay.jpg"])
    (entry,) = report["objects"]
    assert 0 < entry.pop("predicted_iou") <= 1.2
    assert entry == {"object": 0, "slice": 0, "points": [RIGHT_CLICK[:2]], "labels": [1]}
    overlay = Image.open(out / "lesions_overlay.jpg")
    assert overlay.width / overlay.height == WIDTH / HEIGHT


@pytest.mark.parametrize("is_volume", [False, True])
def test_probabilities_on_request_agree_with_the_masks(folder, image, is_volume):
    clicks = [[RIGHT_CLICK], [LEFT_CLICK]]
    if is_volume:
        volume = np.stack([np.asarray(Image.open(image).convert("L"))] * 2, axis=-1).swapaxes(0, 1)  # (X, Y, Z)
        image = write_nifti(folder / "volume.nii.gz", volume.astype(np.int16), np.diag([-1.0, -2.0, 3.0, 1.0]))
    given = {"points": clicks, **({"slice": 1} if is_volume else {})}
    without, plain = infer(folder / "plain", image, **given)
    result, out = infer(folder, image, **given, output_probability=True)
    assert (without.code, result.code) == (0, 0), without.err + result.err
    assert not list(plain.glob("*_probability*"))
    (written,) = out.glob("*_probability.nii.gz")
    probability = nibabel.load(written)
    assert probability.shape == ((WIDTH, HEIGHT, 2, 2) if is_volume else (WIDTH, HEIGHT, 1, 2))
    assert probability.get_data_dtype() == np.float32
    values = probability.get_fdata()
    name = written.name.replace("_probability.nii.gz", "_mask")
    if is_volume:
        np.testing.assert_array_equal(probability.affine, nibabel.load(image).affine)
        masks = [nibabel.load(f / f"{name}.nii.gz").get_fdata() for f in (out, plain)]
        assert values[:, :, 0].max() < 1e-6  # nothing was asked there
    else:
        masks = [read_mask(f / f"{name}.png").T[:, :, None] for f in (out, plain)]
    np.testing.assert_array_equal(*masks)
    best = values.argmax(-1) + 1
    np.testing.assert_array_equal(np.where(values.max(-1) > 0.5, best, 0), masks[0])


def test_several_objects_get_numbers_in_their_order(folder, image):
    result, out = infer(folder, image, points=[[RIGHT_CLICK], [LEFT_CLICK]])
    assert result.code == 0, result.err
    mask = read_mask(out / "lesions_mask.png")
    assert lies_on(mask == 1, RIGHT)
    assert lies_on(mask == 2, LEFT)
    report = json.loads((out / "lesions_prediction.json").read_text())
    assert [entry["object"] for entry in report["objects"]] == [0, 1]


def test_a_box_gives_the_object_in_it(folder, image):
    result, out = infer(folder, image, boxes=[RIGHT_BOX])
    assert result.code == 0, result.err
    assert lies_on(read_mask(out / "lesions_mask.png") == 1, RIGHT)


def test_without_prompts_the_whole_image_is_the_box(folder, image):
    result, out = infer(folder, image)
    assert result.code == 0, result.err
    (entry,) = json.loads((out / "lesions_prediction.json").read_text())["objects"]
    assert (entry["points"], entry["labels"]) == ([[0, 0], [WIDTH - 1, HEIGHT - 1]], [2, 3])


def test_a_folder_gives_a_mask_for_each_image(folder):
    data = make_folder(folder / "data", count=3)
    result, out = infer(folder, data / "images", points=[[32, 32, 1]])
    assert result.code == 0, result.err
    assert sorted(path.name for path in out.glob("*_mask.png")) == [f"case_{i}_mask.png" for i in range(3)]
    assert f"wrote predictions to {out}" in result.out


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"points": [[30, 99, 1]]}, "case_2.png: point (30, 99) lies outside the image of 64 x 64 pixels"),
        ({"image": "images/gone.png"}, "gone.png does not exist"),
    ],
    ids=["point_outside", "absent"],
)
def test_one_bad_item_of_a_list_is_named_and_the_others_are_done(folder, spoil, said):
    data = make_folder(folder / "data", count=5)
    items = [{"image": f"images/case_{i}.png", "points": [[32, 32, 1]]} for i in range(5)]
    items[2].update(spoil)
    (data / "list.json").write_text(json.dumps(items))
    result, out = infer(folder, data / "list.json")
    assert sorted(path.name for path in out.glob("*_mask.png")) == [f"case_{i}_mask.png" for i in (0, 1, 3, 4)]
    assert result.code == 1
    assert len(result.errors) == 1
    assert "1 of 5 images failed, the others are done" in result.errors[0]
    assert said in result.errors[0]
    assert "Traceback" not in result.out + result.err


def test_a_prompt_on_a_slice_fills_that_slice_alone(folder):
    volume = make_decathlon(folder / "data", count=1) / "imagesTr" / "volume_0.nii.gz"
    result, out = infer(folder, volume, boxes=[[10, 8, 29, 23]], slice=2)
    assert result.code == 0, result.err
    mask = np.asarray(nibabel.load(out / "volume_0_mask.nii.gz").dataobj)
    assert mask.shape == (48, 40, 4)
    assert [bool(mask[..., k].any()) for k in range(4)] == [False, False, True, False]
    truth = np.zeros((48, 40), bool)
    truth[10:30, 8:24] = True
    assert lies_on(mask[..., 2] == 1, truth)
    assert (out / "volume_0_slice002_overlay.jpg").is_file()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"points": [[96, 3, 1]]},
            "point (96, 3) lies outside the image of 96 x 64 pixels: x is 0 to 95, y is 0 to 63",
        ),
        ({"boxes": [[5, 5, 5, 9]]}, "box [5, 5, 5, 9] has no area"),
        ({"points": "here"}, "points must be a list, got 'here'"),
        ({"point": [[3, 3, 1]]}, "--point is not a setting: did you mean --points?"),
        ({"slice": 3}, "slice 3 does not exist"),
        ({"dataset_dir": "absent.png"}, "absent.png does not exist"),
        ({"ckpt_path": "absent.pt"}, "no weights at absent.pt"),
    ],
    ids=["outside", "no_area", "no_list", "mistyped", "no_slice", "no_image", "no_weights"],
)
def test_a_bad_request_is_one_line_and_writes_nothing(folder, image, settings, said):
    weights = {"ckpt_path": "models/efficient_sam_vitt_base.pth"}
    where = {"dataset_dir": image, "output_dir": folder / "out", "cache_dir": folder / "cache"}
    result = run_warm("inferring", INFERENCE, **{**weights, **where, **settings})
    assert result.code == 1
    assert len(result.errors) == 1, result.err
    assert said in result.errors[0]
    assert "Traceback" not in result.out + result.err
    assert not (folder / "out").exists()


CHECKPOINTS = {
    "Ti at 64": Settings(image_size=64, adapters=[{"kind": "bottleneck"}]),
    "S at 80, wide": Settings("vits", image_size=80, adapters=[{"kind": "bottleneck", "ratio": 0.5}]),
}


@pytest.fixture(params=CHECKPOINTS)
def checkpoint(request, folder):
    """A checkpoint as a run saves it, of some network."""
    settings, path = CHECKPOINTS[request.param], folder / "model.pt"
    torch.save({"model": build_network(settings).state_dict(), "settings": settings.state_dict()}, path)
    return settings, path


def test_a_checkpoint_of_any_network_needs_no_further_option(folder, image, checkpoint):
    settings = {"ckpt_path": checkpoint[1], "points": [LEFT_CLICK], "output_dir": folder / "out"}
    result = run_warm("inferring", INFERENCE, dataset_dir=image, **settings)
    assert result.code == 0, result.err
    assert read_mask(folder / "out" / "lesions_mask.png").shape == (HEIGHT, WIDTH)


def test_an_option_that_contradicts_the_checkpoint_is_refused_with_both_values(folder, image, checkpoint):
    result = run_warm("inferring", INFERENCE, dataset_dir=image, ckpt_path=checkpoint[1], image_size=256)
    assert result.code == 1
    size = checkpoint[0].image_size
    assert f"is of a network with image_size {size}, but image_size 256 is asked for" in result.errors[0]


def test_a_prediction_is_corrected_from_its_own_mask(folder, image, checkpoint):
    """Ids that the mask and the prompts share go on; the next mask is written as the first was."""
    where = {"ckpt_path": checkpoint[1], "output_dir": folder / "out"}
    result = run_warm("inferring", INFERENCE, dataset_dir=image, points=[LEFT_CLICK], **where)
    assert result.code == 0, result.err
    clicks, mask = [[*LEFT_CLICK[:2], 1], [70, 22, 0]], folder / "out" / "lesions_mask.png"
    result = run_warm("inferring", INFERENCE, dataset_dir=image, points=clicks, mask=mask, **where)
    assert result.code == 0, result.err
    entry = json.loads((folder / "out" / "lesions_prediction.json").read_text())["objects"][0]
    assert entry["labels"] == [1, 0]


def test_a_mask_of_another_size_is_refused(folder, image, checkpoint):
    mask = write_picture(folder / "other.png", np.ones((8, 9), np.uint8))
    where = {"ckpt_path": checkpoint[1], "output_dir": folder / "out"}
    result = run_warm("inferring", INFERENCE, dataset_dir=image, points=[LEFT_CLICK], mask=mask, **where)
    assert result.code == 1
    assert "other.png is 9 x 8 but its image is 96 x 64" in result.errors[0]


def test_a_path_with_a_hash_and_a_folder_named_like_a_number_are_taken_as_they_are(folder):
    write_picture(folder / "2020_01" / "Patient #1" / "a.png", np.full((20, 24), 90, np.uint8))
    settings = {"points": [[9, 8, 1]], "cache_dir": folder / "cache"}
    inside = folder / "2020_01" / "Patient #1" / "a.png"
    result = run("inferring", INFERENCE, dataset_dir=inside, output_dir=folder / "out #1", **settings)
    assert result.code == 0, result.err
    assert (folder / "out #1" / "a_mask.png").is_file()
