# SPDX-License-Identifier: Apache-2.0
"""A network of another geometry goes through training, evaluation, prediction and export as EfficientSAM does."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceLoss

from scripts.engines import EvaluationSimulator, TrainingSimulator
from scripts.export import ExportedNetwork
from scripts.export.checks import check_pair, check_sam, check_whole
from scripts.export.writers import write_onnx, write_sam
from scripts.inferers import EverythingInferer, PromptedSliceInferer
from scripts.inferers.session import PromptSession
from scripts.losses import PromptedMaskLoss
from scripts.networks.promptable import select_mask
from scripts.prompts.crops import SmallObjectCropper
from scripts.transforms import RequestPromptsd
from tests.networks.padded import PaddedNetwork

HEIGHT, WIDTH = 80, 200
LARGE, SMALL = (slice(20, 60), slice(120, 180)), (slice(40, 48), slice(30, 38))


@pytest.fixture
def network():
    return PaddedNetwork().eval()


def drawn():
    """A strip with two patches of different grey, and their masks."""
    image, masks = torch.zeros(1, 3, HEIGHT, WIDTH), torch.zeros(1, 2, HEIGHT, WIDTH)
    for q, (patch, grey) in enumerate(((LARGE, 1.0), (SMALL, 0.75))):
        image[0, :, *patch], masks[0, q, *patch] = grey, 1
    return image, masks


def click(x, y):
    return np.array([[x, y]], np.float32), np.array([1])


def dice(found, wanted):
    return 2 * float((found & wanted).sum() / (found.sum() + wanted.sum()))


@pytest.mark.parametrize("crop", [None, SmallObjectCropper(128, below=16)], ids=["whole", "crops"])
def test_a_session_answers_where_the_objects_lie(network, crop):
    image, masks = drawn()
    logits, iou = PromptSession(network, image, crop).predict([click(150, 40), click(34, 44)])
    assert iou.tolist() == pytest.approx([0.9, 0.9])
    for q, least in enumerate((0.9, 0.9 if crop else 0.6)):
        assert dice(logits[q] > 0, masks[0, q] > 0) > least
    session = PromptSession(network, image, crop)
    session.start_from_masks([mask > 0 for mask in masks[0]])
    assert dice(session.predict([click(150, 40), click(34, 44)])[0][0] > 0, masks[0, 0] > 0) > 0.9


def test_prompts_are_padded_to_its_own_slots(network, monkeypatch):
    image, _ = drawn()
    many = np.repeat([[150, 40]], 8, 0).astype(np.float32), np.ones(8, int)
    calls, decode = [], network.decode_best
    monkeypatch.setattr(network, "decode_best", lambda *given: calls.append(given[1].shape) or decode(*given))
    PromptSession(network, image).predict([click(150, 40), many])
    assert calls == [(1, 2, 8, 2)]  # with six slots they would be decoded apart


def test_prediction_and_everything_mode_come_on_the_images_own_grid(network):
    image, masks = drawn()
    item = RequestPromptsd(points=[[[150, 40, 1]]])({"image": MetaTensor(image[0].transpose(1, 2))})
    labels = PromptedSliceInferer(merge=True)(item["image"][None], network)
    assert labels.shape == (1, 1, WIDTH, HEIGHT)
    assert dice(labels[0, 0].as_tensor().T > 0, masks[0, 0] > 0) > 0.9
    found = EverythingInferer(8, stability_threshold=0.3, max_area=0.2)(MetaTensor(image.transpose(2, 3)), network)
    ids = found[0, 0].as_tensor().T
    assert dice(ids == ids[40, 150], masks[0, 0] > 0) > 0.9


def test_evaluation_corrects_it(network):
    image, masks = drawn()
    image[0, :, 20:60, 20:60] = 1.0  # as bright as the object, and not of it
    prompts = {"click_1": {"points": torch.tensor([[[[150.0, 40.0]]]]), "labels": torch.tensor([[[1]]])}}
    result = EvaluationSimulator(network, (1, 5))(image, masks[:, :1], prompts)
    first, fifth = (dice(result["masks"][kind][0, 0] > 0, masks[0, 0] > 0) for kind in ("click_1", "click_5"))
    assert fifth > first + 0.15


def test_training_moves_its_weights(network):
    image = torch.nn.functional.interpolate(drawn()[0], [128, 128])
    label = torch.nn.functional.interpolate(drawn()[1][:, :1], [128, 128])
    module = TrainingSimulator(network.train(), rounds=3, gradient_rounds=3)
    loss = PromptedMaskLoss(DiceLoss(sigmoid=True, reduction="none"))
    torch.manual_seed(1)
    answers = module(image, torch.tensor([[[[96.0, 64.0]]]]), torch.tensor([[[1]]]), label)
    loss(answers, label).backward()
    assert network.contrast.grad is not None and bool(network.contrast.grad.isfinite())


@pytest.mark.slow
def test_its_files_answer_as_it_does(network, tmp_path):
    network.requires_grad_(False)
    write_onnx(network, tmp_path)
    images = [drawn()[0], torch.rand(1, 3, 90, 50), torch.rand(1, 3, 64, 64)]
    check_pair(network, tmp_path, "onnxruntime", images)
    check_whole(network, tmp_path, "onnxruntime", images)
    write_sam(network, tmp_path)
    check_sam(network, tmp_path, images, False)
    exported = ExportedNetwork(network, tmp_path, "onnxruntime")
    prompts = [click(150, 40), click(34, 44)]
    torch.testing.assert_close(
        *(
            PromptSession(each, images[0], SmallObjectCropper(128, 16)).predict(prompts)[0]
            for each in (network, exported)
        ),
        atol=1e-3,
        rtol=0,
    )


@pytest.mark.parametrize("index", [None, torch.tensor([[2, 0]])])
def test_the_mask_of_the_best_predicted_iou_or_the_one_asked_for_is_selected(index):
    logits, iou = torch.arange(8.0).view(1, 2, 4, 1, 1), torch.tensor([[[0.1, 0.9, 0.3, 0.2], [0.5, 0.1, 0.7, 0.6]]])
    chosen, quality = select_mask(logits, iou, index)
    assert chosen.flatten().tolist() == ([1, 6] if index is None else [2, 4])
    assert quality.flatten().tolist() == pytest.approx([0.9, 0.7] if index is None else [0.3, 0.5])
