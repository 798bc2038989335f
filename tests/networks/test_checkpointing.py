# SPDX-License-Identifier: Apache-2.0
"""Activations computed again: the same gradients from fewer bytes."""

import copy

import torch

from scripts.engines import TrainingSimulator
from scripts.networks import add_adapters, checkpoint_activations, train_only
from tests.networks.recipe import recipe_images, recipe_network

POINTS, LABELS = torch.tensor([[[[31.0, 40.0]]]]), torch.tensor([[[1]]])


def train(network):
    """Give the gradients of a step of two rounds, and the bytes that were kept for it."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    clicks = TrainingSimulator(network, rounds=2, gradient_rounds=2)
    clicks.draw_rounds = lambda: 2
    image = recipe_images(1)
    target = torch.zeros(1, 1, *image.shape[2:])
    target[..., 20:40, 20:40] = 1
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sum(logits.square().mean() + iou.sum() for logits, iou, *_ in clicks(image, POINTS, LABELS, target))
    loss.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, sum(kept.values())


def test_gradients_are_the_same_from_fewer_bytes():
    plain = train_only(add_adapters(recipe_network("vitt", 64)), ["adapters", "mask_tokens"]).train()
    checkpointed = checkpoint_activations(copy.deepcopy(plain))
    (expected, bytes_plain), (gradients, bytes_checkpointed) = train(plain), train(checkpointed)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert bytes_checkpointed < 0.25 * bytes_plain  # of the encoder alone it would be half


def test_names_stay_and_a_copy_is_a_network_of_its_own():
    plain = recipe_network("vitt", 64).requires_grad_(False).eval()
    checkpointed = checkpoint_activations(copy.deepcopy(plain))
    assert checkpointed.state_dict().keys() == plain.state_dict().keys()
    other = copy.deepcopy(checkpointed)  # as a moving average of the weights is made
    for parameter in checkpointed.parameters():
        parameter.zero_()
    assert torch.equal(other.encode_image(recipe_images(1)), plain.encode_image(recipe_images(1)))
