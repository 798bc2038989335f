# SPDX-License-Identifier: Apache-2.0
"""Clicks and boxes through a real server, as 3D Slicer, CVAT and OHIF send them."""

import json
from concurrent.futures import ThreadPoolExecutor

import itk
import nibabel
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from scripts.networks import SAMPLE, Settings, build_network, load_weights
from tests.e2e.bundle import ROOT, run_warm
from tests.label.server import dice
from tests.label.studies import PICTURES, VOLUMES

pytestmark = pytest.mark.slow

BASE = ROOT / "models" / "efficient_sam_vitt_base.pth"


def box_of(truth, k):
    """Give the box around a slice of the truth as 3D Slicer does: each pair of sides may be reversed."""
    (x0, y0), (x1, y1) = np.argwhere(truth[..., k]).min(0), np.argwhere(truth[..., k]).max(0)
    return [int(v) for v in (x1, x0, y0, y1, k + 1, k - 1)]


def test_it_offers_two_models_that_take_clicks_and_the_weights_there_are(server):
    info = server.client.info()
    assert {name: (m["type"], m["dimension"]) for name, m in info["models"].items()} == {
        "efficientsam_2d": ("deepgrow", 2),
        "efficientsam_3d": ("deepgrow", 3),
    }
    assert info["labels"] == ["lesion", "vessel"]
    offered = info["models"]["efficientsam_2d"]["config"]["model_filename"]
    assert (offered[0], offered[-1]) == ("best", BASE.name)
    assert set(info["strategies"]) == {"least_sure", "first", "random"}


@pytest.mark.parametrize("name", VOLUMES)
def test_a_click_changes_the_clicked_slice_of_a_volume_on_its_own_grid(server, truths, name):
    x, y, k = VOLUMES[name][1]
    mask, told, image = server.infer(name, foreground=[[x, y, k]], slice=k)
    assert mask.shape == VOLUMES[name][0] and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
    assert mask[x, y, k] == 1 and np.flatnonzero(mask.any((0, 1))).tolist() == [k]
    assert told["label_names"] == {"lesion": 1, "vessel": 2}
    # the affine of the file, in ITK's own axes
    affine = nibabel.load(f"{server.studies}/{name}.nii.gz").affine
    direction, spacing = itk.array_from_matrix(image.GetDirection()), np.asarray(image.GetSpacing())
    assert np.allclose(direction * spacing, np.diag([-1, -1, 1]) @ affine[:3, :3])
    assert np.allclose(image.GetOrigin(), np.diag([-1, -1, 1]) @ affine[:3, 3])


@pytest.mark.parametrize("name", VOLUMES)
def test_a_box_with_reversed_sides_finds_the_object_with_and_without_a_click(server, truths, name):
    x, y, k = VOLUMES[name][1]
    roi = box_of(truths[name], k)
    mask, _, _ = server.infer(name, roi=roi, foreground=[[x, y, k]], slice=k)
    assert dice(mask[..., k], truths[name][..., k]) > 0.9
    alone, _, _ = server.infer(name, roi=roi, slice=40)  # 3D Slicer sends millimetres here
    assert dice(alone[..., k], truths[name][..., k]) > 0.9
    assert np.flatnonzero(alone.any((0, 1))).tolist() == [k]


def test_a_background_click_changes_the_mask(server):
    x, y, k = VOLUMES["vol_a"][1]
    before, _, _ = server.infer("vol_a", foreground=[[x, y, k]], slice=k)
    after, _, _ = server.infer("vol_a", foreground=[[x, y, k]], background=[[x + 8, y, k]], slice=k)
    assert (before != after).any()


def test_in_3d_each_clicked_slice_is_answered(server):
    x, y, k = VOLUMES["vol_a"][1]
    mask, _, _ = server.infer("vol_a", 3, foreground=[[x, y, k - 1], [x, y, k + 1]])
    assert np.flatnonzero(mask.any((0, 1))).tolist() == [k - 1, k + 1]


@pytest.mark.parametrize("name", VOLUMES)
def test_one_click_segments_a_whole_object_and_a_background_click_ends_it(server, truths, name):
    x, y, k = VOLUMES[name][1]
    options = server.client.info()["models"]["efficientsam_3d"]["config"]["spread"]
    click = {"foreground": [[x, y, k]], "spread": options[1], "slice": k}  # the slice that is shown is not all
    mask, _, image = server.infer(name, 3, **click)
    assert dice(mask, truths[name]) > 0.8
    plain, _, plain_image = server.infer(name, 3, **{**click, "spread": options[0]})
    assert np.flatnonzero(plain.any((0, 1))).tolist() == [k] and np.array_equal(plain[..., k], mask[..., k])
    assert np.allclose(image.GetOrigin(), plain_image.GetOrigin())
    ended, _, _ = server.infer(name, 3, **click, background=[[2, 2, k + 1]])
    assert np.array_equal(ended[..., : k + 1], mask[..., : k + 1]) and not ended[..., k + 1 :].any()


def test_clicks_on_several_slices_are_all_anchors_of_a_whole_object(server, truths):
    x, y, k = VOLUMES["vol_a"][1]
    one, _, _ = server.infer("vol_a", 3, foreground=[[x, y, k]], spread="whole object")
    two, _, _ = server.infer("vol_a", 3, foreground=[[x, y, k], [x + 3, y, k + 2]], spread="whole object")
    assert np.array_equal(one[..., k], two[..., k]) and dice(two, truths["vol_a"]) > 0.8


@pytest.mark.parametrize(
    "request_", [{}, {"foreground": [], "background": [[3, 3, 1]]}, {"foreground": [[900, 3, 1]]}, {"foreground": [[]]}]
)
def test_what_asks_for_nothing_gets_an_empty_mask(server, request_):
    mask, _, _ = server.infer("vol_a", **{"foreground": [], "slice": 1, **request_})
    assert mask.shape == VOLUMES["vol_a"][0] and not mask.any()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_answered_as_it_lies_and_as_cvat_uploads_it(server, truths, name):
    (x, y), stem = PICTURES[name][1], name.partition(".")[0]
    truth = truths[stem]
    (x0, y0), (x1, y1) = np.argwhere(truth).min(0), np.argwhere(truth).max(0)
    mask, _, _ = server.infer(stem, foreground=[[x, y, 0]], roi=[int(v) for v in (x0, x1, y0, y1, 0, 0)])
    assert mask.shape == truth.shape and dice(mask, truth) > 0.85
    upload, params = f"{server.studies}/{name}", {"foreground": [[x, y]], "roi": [int(v) for v in (x0, y0, x1, y1)]}
    path, _ = server.client.infer("efficientsam_2d", "", {**params, "result_extension": ".png"}, file=upload)
    uploaded = np.asarray(Image.open(path)).T
    assert np.array_equal(uploaded > 0, mask > 0)


def test_dice_through_the_server_is_that_of_inferring_to_the_last_digit(server, tmp_path):
    (x, y), (vx, vy, k) = PICTURES["photo.jpg"][1], VOLUMES["vol_b"][1]
    items = [
        {"image": f"{server.studies}/photo.jpg", "points": [[[x, y, 1], [x + 20, y, 0]]]},
        {"image": f"{server.studies}/vol_b.nii.gz", "points": [[vx, vy, 1]], "slice": k},
    ]
    (tmp_path / "items.json").write_text(json.dumps(items))
    settings = {"dataset_dir": tmp_path / "items.json", "ckpt_path": BASE, "output_dir": tmp_path / "out"}
    assert run_warm("inferring", "configs/inference.yaml", **settings).code == 0
    mask, _, _ = server.infer("photo", foreground=[[x, y, 0]], background=[[x + 20, y, 0]])
    assert np.array_equal(mask.T, np.asarray(Image.open(tmp_path / "out" / "photo_mask.png")))
    mask, _, _ = server.infer("vol_b", foreground=[[vx, vy, k]], slice=k)
    assert np.array_equal(mask, np.asarray(nibabel.load(tmp_path / "out" / "vol_b_mask.nii.gz").dataobj))


@pytest.mark.parametrize(
    ("model", "image", "params", "status", "says"),
    [
        ("efficientsam_2d", "nobody", {}, 404, "there is no image nobody"),
        ("efficientsam_3d", "vol_a", {"spread": "all"}, 400, "there is no spread 'all': choose clicked slices, whole"),
        ("efficientsam_9d", "vol_a", {}, 404, "There is no model"),
        ("efficientsam_2d", "vol_a", {"model_filename": "secret.pt"}, 400, "there are no weights secret.pt"),
        ("efficientsam_2d", "vol_a", {"foreground": 7}, 400, "foreground is a list of indices"),
        ("efficientsam_2d", "broken", {"foreground": [[1, 1, 0]]}, 400, "broken.png cannot be read as an image"),
    ],
)
def test_an_error_is_a_4xx_with_its_sentence_and_the_server_goes_on(server, model, image, params, status, says):
    with pytest.raises(Exception) as caught:
        server.client.infer(model, image, params)
    assert f"Status: {status}" in caught.value.msg and says in caught.value.msg
    assert "refused: " in server.log and says in server.log
    assert server.infer("grey", foreground=[[30, 34, 0]])[0].any()


def test_eight_clients_at_once_each_get_their_own_answer(server, truths):
    asked = [("grey", PICTURES["grey.png"][1]), ("photo", PICTURES["photo.jpg"][1])]
    asked += [(name, VOLUMES[name][1]) for name in VOLUMES]
    alone = {name: server.infer(name, foreground=[list(at)])[0] for name, at in asked}
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with ThreadPoolExecutor(8) as pool:
        names = [asked[n % len(asked)] for n in range(50)]
        answers = list(pool.map(lambda one: server.infer(one[0], foreground=[list(one[1])])[0], names))
    assert all(np.array_equal(answer, alone[name]) for answer, (name, _) in zip(answers, names))
    assert process.memory_info().rss < before + 200e6


def test_the_least_sure_image_comes_next_and_not_again_once_it_has_a_label(server, tmp_path):
    first, again = (server.client.next_sample("least_sure", {})["id"] for _ in range(2))
    assert first == again and first in {*VOLUMES, "grey", "photo"}
    suffix = ".nii.gz" if first in VOLUMES else ".png"
    label = tmp_path / f"label{suffix}"
    if first in VOLUMES:
        nibabel.save(nibabel.Nifti1Image(np.zeros(VOLUMES[first][0], np.uint8), np.eye(4)), label)
    else:
        Image.new("L", (8, 8)).save(label)
    assert server.client.save_label(first, str(label))["image"] == first
    assert server.client.next_sample("least_sure", {})["id"] != first


def test_weights_of_the_sample_answer_by_their_name_alone(server):
    click = {"foreground": [[26, 30, 4]], "slice": 4}
    before, _, _ = server.infer("vol_a", **click)
    settings = Settings(image_size=128, trained_on=SAMPLE)
    network = load_weights(build_network(settings), BASE)
    path = server.root / "models" / "model.pt"
    torch.save({"model": network.state_dict(), "settings": settings.state_dict()}, path)
    try:
        assert np.array_equal(server.infer("vol_a", **click)[0], before)
        assert (server.infer("vol_a", **click, model_filename="model.pt")[0] != before).any()
        assert "was trained on the built-in sample: the base answers" in server.log
    finally:
        path.unlink()


def test_new_weights_of_another_size_answer_without_a_restart_and_broken_ones_say_so(server):
    before, _, _ = server.infer("vol_a", foreground=[[26, 30, 4]], slice=4)
    settings = Settings(image_size=128, adapters=[{"kind": "bottleneck"}])
    network = load_weights(build_network(settings), BASE)
    path = server.root / "models" / "model.pt"
    torch.save({"model": network.state_dict(), "settings": settings.state_dict()}, path)
    try:
        after, _, _ = server.infer("vol_a", foreground=[[26, 30, 4]], slice=4)
        assert after.any() and (before != after).any()
        assert "model.pt" in server.client.info()["models"]["efficientsam_3d"]["config"]["model_filename"]
        base, _, _ = server.infer("vol_a", foreground=[[26, 30, 4]], slice=4, model_filename=BASE.name)
        assert np.array_equal(base, before)
        path.write_bytes(b"not weights")
        with pytest.raises(Exception) as caught:
            server.infer("vol_a", foreground=[[26, 30, 4]], slice=4)
        assert "Status: 400" in caught.value.msg and "model.pt" in caught.value.msg
    finally:
        path.unlink()
    assert np.array_equal(server.infer("vol_a", foreground=[[26, 30, 4]], slice=4)[0], before)
