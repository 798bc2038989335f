# SPDX-License-Identifier: Apache-2.0
"""The inferer: each prompted slice is encoded once, what nobody asked for stays empty, and the answer goes with the
image."""

import json

import pytest
import torch
from monai.data import MetaTensor

from scripts.inferers import PromptedSliceInferer
from scripts.inferers.prompted_slices import MOST_CROPS, merge_looks
from scripts.networks import EfficientSAM
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.crops import SmallObjectCropper
from scripts.prompts.form import PREVIOUS_KEY
from scripts.transforms import RequestPromptsd, ToRGB
from tests.inferers.brightness import IMAGE_SIZE, PREDICTED_IOU, BrightnessNetwork
from tests.networks.recipe import recipe_network

LAYOUT = ClassLayout({"cell": [1, 2], "nucleus": [2]})
OUTSIDE_LOGIT = -100
X, Y, Z = 9, 6, 4


def drawn():
    """A volume (3, X, Y, Z), another bar on each slice: slice k is bright in columns k and k + 1, dark in column 8."""
    volume = torch.full((3, X, Y, Z), 0.5)
    for k in range(Z):
        volume[:, k : k + 2, :, k] = 1.0
    volume[:, 8] = 0.0
    return volume


def infer(volume, points=None, boxes=None, slice_index=None, network=None, **meta):
    image = MetaTensor(volume, affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])), meta=meta)
    item = RequestPromptsd(points=points, boxes=boxes, slice_index=slice_index)({"image": image})
    return PromptedSliceInferer()(item["image"][None], network or BrightnessNetwork())


def test_picture_gives_logits_on_its_own_grid():
    volume = drawn()[..., 0]
    logits = infer(volume, [[0, 5, 1]])
    assert logits.shape == (1, 1, X, Y)
    assert torch.equal(logits[0, 0] > 0, volume[0] == 1)


def test_only_prompted_slices_are_segmented_each_by_its_own_prompt():
    volume, network = drawn(), BrightnessNetwork()
    logits = infer(volume, [[1, 0, 1, 1], [8, 3, 3, 1]], network=network)
    assert logits.shape == (1, 1, X, Y, Z)
    assert torch.equal(logits[0, 0, ..., 1] > 0, volume[0, ..., 1] == 1)
    assert torch.equal(logits[0, 0, ..., 3] > 0, volume[0, ..., 3] == 0)
    assert (logits[..., [0, 2]] == OUTSIDE_LOGIT).all()
    assert network.encoded == [(1, 3, Y, X)] * 2


def test_slice_is_encoded_once_for_all_its_objects():
    volume, network = drawn(), BrightnessNetwork()
    logits = infer(volume, [[[2, 0, 2, 1]], [[8, 0, 2, 1]], [[8, 5, 0, 1]]], network=network)
    assert len(network.encoded) == 2
    assert torch.equal(logits[0, 0, ..., 2] > 0, volume[0, ..., 2] == 1)
    assert torch.equal(logits[0, 1, ..., 2] > 0, volume[0, ..., 2] == 0)
    assert torch.equal(logits[0, 2, ..., 0] > 0, volume[0, ..., 0] == 0)
    assert (logits[0, 2, ..., 2] == OUTSIDE_LOGIT).all()  # asked for on another slice
    assert (logits[0, :2, ..., 0] == OUTSIDE_LOGIT).all()


def test_objects_with_prompts_of_different_lengths_are_decoded_together():
    logits = infer(drawn()[..., 0], boxes=[[0, 1, 3, 2], [5, 0, 7, 5]], points=[[[1, 1, 1]], [[6, 1, 1], [7, 1, 0]]])
    assert logits.shape == (1, 2, X, Y)
    assert (logits[0, 0] > 0).sum() == 2 * Y
    assert (logits[0, 1] > 0).sum() == 6 * Y


def test_without_prompts_the_box_of_the_whole_image_is_asked_for_on_each_slice():
    network = BrightnessNetwork()
    assert (infer(drawn(), network=network) > 0).all()
    assert len(network.encoded) == Z


def test_mask_of_the_best_predicted_iou_is_taken_and_its_iou_reported():
    logits = infer(drawn(), [[[1, 0, 1, 1]], [[8, 3, 3, 1]]])
    entries = json.loads(logits.meta["prompts"])
    assert [(entry["object"], entry["slice"], entry["points"]) for entry in entries] == [
        (0, 1, [[1, 0]]),
        (1, 3, [[8, 3]]),
    ]
    assert [entry["predicted_iou"] for entry in entries] == [PREDICTED_IOU] * 2


def test_meta_and_affine_of_the_image_go_with_the_answer():
    logits = infer(drawn(), [[1, 0, 1, 1]], filename_or_obj="liver.nii.gz")
    assert logits.meta["filename_or_obj"] == "liver.nii.gz"
    assert logits.affine.diag().tolist() == [2, 3, 4, 1]


def test_image_itself_keeps_its_prompts_as_they_were():
    item = RequestPromptsd(points=[[1, 0, 1]])({"image": MetaTensor(drawn()[..., 0])})
    written = item["image"].meta["prompts"]
    PromptedSliceInferer()(item["image"][None], BrightnessNetwork())
    assert item["image"].meta["prompts"] == written
    assert "predicted_iou" not in written


def test_several_images_at_once_are_refused():
    with pytest.raises(ValueError, match="one image at a time: got a batch of 2"):
        PromptedSliceInferer()(MetaTensor(torch.zeros(2, 3, X, Y)), BrightnessNetwork())


@pytest.mark.parametrize("image", [MetaTensor(torch.zeros(1, 3, X, Y)), torch.zeros(1, 3, X, Y)], ids=["meta", "plain"])
def test_image_without_prompts_is_refused(image):
    with pytest.raises(ValueError, match="no prompts came with the image: put RequestPromptsd before the inferer"):
        PromptedSliceInferer()(image, BrightnessNetwork())


def test_real_network_gives_what_its_own_forward_gives():
    torch.manual_seed(0)
    network = EfficientSAM("vitt", 64).eval()
    volume = torch.rand(3, 90, 70)
    with torch.no_grad():
        logits = infer(volume, [[40, 7, 1]], network=network)
        expected = network(volume.transpose(1, 2)[None], torch.tensor([[[40.0, 7.0]]]), torch.tensor([[1]]))
    torch.testing.assert_close(logits.as_tensor()[0, 0], expected[0, 0].T, atol=1e-5, rtol=0)


def test_small_object_is_predicted_again_on_a_crop_around_it():
    volume, network = torch.full((3, 80, 60), 0.5), BrightnessNetwork()
    volume[:, 50:54, 20:26] = 1.0
    item = RequestPromptsd(points=[[51, 22, 1]])({"image": MetaTensor(volume)})
    logits = PromptedSliceInferer(SmallObjectCropper(IMAGE_SIZE, 16))(item["image"][None], network)
    assert ((logits[0, 0] > 0) != (volume[0] == 1)).sum() <= 1  # enlarging blurs a corner
    assert network.encoded == [(1, 3, 60, 80), (1, 3, IMAGE_SIZE, IMAGE_SIZE)]
    assert (logits[0, 0, :30] == OUTSIDE_LOGIT).all()


def test_each_prompt_asks_for_every_class_by_its_own_mask():
    asked = []

    class Network(BrightnessNetwork):
        def decode_best(self, embeddings, points, labels, size, mask_prompt=None, mask_index=None):
            asked.append((points.tolist(), mask_index.tolist(), labels.tolist()))
            logits, iou = super().decode_best(embeddings, points, torch.where(labels == 4, 1, labels), size)
            return logits - mask_index[:, :, None, None, None], iou / mask_index

    item = RequestPromptsd(points=[[[1, 0, 1]], [[8, 3, 1]]])({"image": MetaTensor(drawn()[..., 0])})
    logits = PromptedSliceInferer(layout=LAYOUT)(item["image"][None], Network())
    [(points, index, labels)] = asked
    assert [one[0] for one in labels[0]] == [1, 4, 1, 4]  # the inner class need not be there
    assert index == [[1, 2, 1, 2]]
    assert points[0][0] == points[0][1] != points[0][2] == points[0][3]
    assert logits[0].amax((1, 2)).tolist() == [4, 3, 4, 3]  # object by object, class by class
    assert [entry["predicted_iou"] for entry in json.loads(logits.meta["prompts"])] == [PREDICTED_IOU] * 2


def filed(path, image, points):
    """An image that comes from a file, with its prompts, as a loader gives it."""
    item = RequestPromptsd(points=points)({"image": MetaTensor(image, meta={"filename_or_obj": str(path)})})
    return item["image"][None]


def test_a_second_click_on_a_slice_encodes_nothing(tmp_path):
    path, network, inferer = tmp_path / "a.png", BrightnessNetwork(), PromptedSliceInferer()
    path.write_text("first")
    with torch.no_grad():
        for x in (1, 8):
            inferer(filed(path, drawn()[..., 0], [[x, 0, 1]]), network)
        assert len(network.encoded) == 1
        path.write_text("another file")
        inferer(filed(path, drawn()[..., 0], [[1, 0, 1]]), network)
        assert len(network.encoded) == 2


def test_other_weights_or_another_network_are_not_served_old_embeddings(tmp_path):
    path, inferer = tmp_path / "a.png", PromptedSliceInferer()
    path.write_text("image")
    image = filed(path, torch.rand(3, 40, 30), [[1, 2, 1]])
    networks = [EfficientSAM("vitt", 64).eval() for _ in range(2)]
    with torch.no_grad():
        first, second = (inferer(image, network).as_tensor() for network in networks)
        assert not torch.equal(first, second)
        networks[0].load_state_dict(networks[1].state_dict())
        assert torch.equal(inferer(image, networks[0]).as_tensor(), second)


def test_only_so_many_slices_are_kept(tmp_path):
    path, network, inferer = tmp_path / "a.nii", BrightnessNetwork(), PromptedSliceInferer(kept_slices=2)
    path.write_text("image")
    with torch.no_grad():
        for k in (0, 1, 2, 2, 1, 0):
            inferer(filed(path, torch.rand(3, 9, 8, 3), [[1, 2, k, 1]]), network)
    assert len(network.encoded) == 4


def test_only_prompted_slices_become_rgb_scaled_as_the_volume_is():
    seen = []

    def to_rgb(image):
        seen.append((tuple(image.shape), image.meta))
        return image.repeat(3, 1, 1)

    image = MetaTensor(torch.rand(1, 9, 8, 5), meta={"percentiles": [0.0, 0.5]})
    item = RequestPromptsd(points=[[1, 2, 3, 1]])({"image": image})
    logits = PromptedSliceInferer(to_rgb=to_rgb)(item["image"][None], BrightnessNetwork())
    [(shape, meta)] = seen
    assert shape == (1, 9, 8) and meta["percentiles"] == [0.0, 0.5]
    assert logits.shape == (1, 1, 9, 8, 5)


def test_a_request_that_asks_for_nothing_gives_an_empty_mask():
    item = RequestPromptsd()({"image": MetaTensor(torch.rand(3, 9, 8)), "foreground": []})
    logits = PromptedSliceInferer()(item["image"][None], BrightnessNetwork())
    assert logits.shape == (1, 1, 9, 8) and (logits == OUTSIDE_LOGIT).all()


@pytest.mark.parametrize("mask_feedback", [True, False])
def test_the_mask_to_correct_is_shown_to_a_network_that_was_trained_to_see_it(mask_feedback):
    seen = []

    class Network(BrightnessNetwork):
        def decode_best(self, embeddings, points, labels, size, mask_prompt=None, mask_index=None):
            seen.append(mask_prompt)
            return super().decode_best(embeddings, points, labels, size)

    image = MetaTensor(torch.rand(3, 9, 8), meta={PREVIOUS_KEY: torch.eye(9, 8, dtype=torch.int32)})
    item = RequestPromptsd(points=[[1, 1, 1]])({"image": image})
    PromptedSliceInferer(mask_feedback=mask_feedback)(item["image"][None], Network())
    assert (seen[0] is not None) == mask_feedback


def test_a_slice_with_too_many_crops_starts_anew_and_leaves_them_to_who_has_them(tmp_path):
    path, network, inferer = tmp_path / "a.png", BrightnessNetwork(), PromptedSliceInferer()
    path.write_text("image")
    with torch.no_grad():
        first = inferer.kept_of(network, (str(path), 0))
        first.update({(k, 0, k + 1, 1): torch.zeros(1) for k in range(MOST_CROPS + 1)})
        assert inferer.kept_of(network, (str(path), 0)) == {}
    assert len(first) == MOST_CROPS + 1


class Drawn:
    """A session that has run, with logits as given, on windows of an image of 1 x 3 pixels."""

    size, image = (1, 3), torch.zeros(1, 3, 1, 3)

    def __init__(self, *answers):
        self.views = answers

    def part(self, look):
        window, logits = look if isinstance(look, tuple) else ((0, 0, 3, 1), look)
        return window, torch.tensor([logits])


def merged(session, owners, layout):
    labels = torch.zeros(session.size, dtype=torch.uint8)
    merge_looks(session, owners, layout, labels)
    return labels.tolist()


def test_merged_the_largest_positive_logit_wins_and_the_rest_is_background():
    session = Drawn([5.0, -1.0, 2.0], [1.0, 3.0, 4.0], ((2, 0, 3, 1), [9.0]))
    assert merged(session, [0, 1, 6], None) == [[1, 2, 7]]
    assert merged(Drawn([-1.0, 0.0, -100.0]), [0], None) == [[0, 0, 0]]


def test_merged_the_inner_class_wins_over_the_one_around_it_whatever_their_logits():
    cell, nucleus = [9.0, 9.0, -1.0], [1.0, -1.0, 1.0]
    other_cell, other_nucleus = [-1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]
    assert merged(Drawn(cell, nucleus, other_cell, other_nucleus), [0, 0, 1, 1], LAYOUT) == [[2, 2, 2]]
    assert merged(Drawn(other_cell, other_nucleus, cell, nucleus), [0, 0, 1, 1], LAYOUT) == [[2, 2, 2]]
    assert merged(Drawn(cell, nucleus), [0, 0], LAYOUT) == [[2, 1, 2]]


@pytest.mark.parametrize(("count", "dtype"), [(2, torch.uint8), (255, torch.uint8), (256, torch.int32)])
def test_merged_is_what_the_logits_say(count, dtype):
    points = [[[q % X, q % Y, q % Z, 1]] for q in range(count)]
    item = RequestPromptsd(points=points)({"image": MetaTensor(drawn())})
    network = BrightnessNetwork()
    labels = PromptedSliceInferer(merge=True)(item["image"][None], network)
    logits = PromptedSliceInferer()(item["image"][None], network)
    largest, index = logits.as_tensor().max(1, keepdim=True)
    assert labels.shape == (1, 1, X, Y, Z) and labels.dtype == dtype
    assert torch.equal(labels.as_tensor(), torch.where(largest > 0, index + 1, 0).to(dtype))
    assert labels.meta["prompts"] == logits.meta["prompts"]


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("large", [0, 10**6])
def test_a_pictures_bytes_are_answered_as_its_numbers_are(merge, large, monkeypatch):
    """Wrapped, ToRGB makes numbers of the whole picture; as itself it leaves bytes."""
    monkeypatch.setattr("scripts.inferers.session.LARGE", large)
    picture = (torch.rand(3, 150, 90, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    network = recipe_network("vitt", 64, corrections=True).requires_grad_(False)
    answers = []
    for to_rgb in (ToRGB(), lambda image: ToRGB()(image)):
        item = RequestPromptsd(points=[[[100, 40, 1]], [[20, 60, 1]]], boxes=None)({"image": MetaTensor(picture)})
        inferer = PromptedSliceInferer(to_rgb=to_rgb, crop=SmallObjectCropper(64), merge=merge)
        answers.append(inferer(item["image"][None], network).as_tensor())
    assert torch.equal(*answers)


@pytest.mark.parametrize("merge", [False, True])
def test_background_clicks_alone_ask_for_nothing_and_that_is_told(merge, caplog):
    item = RequestPromptsd(points=[[[0, 5, 1]], [[8, 5, 0]]])({"image": MetaTensor(drawn()[..., 0])})
    network = BrightnessNetwork()
    result = PromptedSliceInferer(merge=merge)(item["image"][None], network)
    assert "background clicks alone ask for nothing" in caplog.text
    first = (result[0, 0] == 1) if merge else result[0, 0] > 0
    assert torch.equal(first, drawn()[0, ..., 0] == 1)
    assert (result != 2).all() if merge else (result[0, 1] == OUTSIDE_LOGIT).all()
    alone = RequestPromptsd(points=[[8, 5, 0]])({"image": MetaTensor(drawn()[..., 0])})["image"]
    network = BrightnessNetwork()
    assert not (PromptedSliceInferer(merge=True)(alone[None], network) > 0).any()
    assert network.encoded == []


def test_a_volumes_file_is_looked_at_once_and_slices_that_ask_nothing_are_left_alone(tmp_path, monkeypatch):
    """A series has hundreds of files, and a volume hundreds of slices."""
    path, looked, turned = tmp_path / "a.nii", [], []
    path.write_text("numbers")
    state = "scripts.inferers.slices.file_state"
    monkeypatch.setattr(state, lambda source: looked.append(source) or (source,))
    points = [[[1, 0, k, 1]] for k in range(2)] + [[[1, 0, 2, 0]]]  # a background click alone on the third slice
    item = RequestPromptsd(points=points)({"image": MetaTensor(drawn(), meta={"filename_or_obj": str(path)})})
    inferer = PromptedSliceInferer(to_rgb=lambda image: turned.append(image.shape) or image, merge=True)
    with torch.no_grad():
        inferer(item["image"][None], BrightnessNetwork())
    assert looked == [str(path)]
    assert len(turned) == 2
