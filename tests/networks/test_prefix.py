# SPDX-License-Identifier: Apache-2.0
"""The frozen prefix: the same embeddings in two halves, as far as nothing is trained, and nothing kept of it."""

import pytest
import torch

from scripts.engines.training import TrainingSimulator
from scripts.errors import InputError
from scripts.networks import EfficientSAM, FrozenPrefix, add_adapters, parameter_groups, train_only
from tests.networks.recipe import recipe_images, recipe_network
from tests.networks.sam_recipe import recipe_sam


def late(network, last_blocks):
    return add_adapters(network, [{"kind": "lora", "last_blocks": last_blocks}])


@pytest.mark.parametrize(
    ("prepare", "depth", "shape"),
    [
        (lambda n: train_only(n, ["mask_decoder"]), 13, (1, 256, 4, 4)),
        (lambda n: train_only(n, ["neck", "mask_decoder"]), 12, (1, 16, 192)),
        (lambda n: train_only(n, ["last_4_blocks"]), 8, (1, 16, 192)),
        (lambda n: late(n, 3), 9, (1, 16, 192)),
        (lambda n: late(n, 11), 1, (1, 16, 192)),
    ],
    ids=["decoder", "neck", "last 4 blocks", "late LoRA", "nearly all"],
)
def test_two_halves_encode_as_the_whole(prepare, depth, shape):
    network = prepare(recipe_network("vitt", 64))
    prefix, image = FrozenPrefix(network), recipe_images(1)
    assert prefix.depth == depth
    features = prefix.start(image)
    assert features.shape == shape and not features.requires_grad
    torch.testing.assert_close(prefix.finish(features), network.encode_image(image), atol=1e-6, rtol=0)


def test_two_halves_of_sam_encode_as_the_whole():
    network = train_only(recipe_sam(64), ["image_encoder.blocks.1", "mask_decoder"])
    prefix, image = FrozenPrefix(network), recipe_images(1)
    assert prefix.depth == 1
    torch.testing.assert_close(prefix.finish(prefix.start(image)), network.encode_image(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda n: train_only(n, None),
        lambda n: add_adapters(n),
        lambda n: train_only(n, ["patch_embed"]),
        lambda n: train_only(n, ["pos_embed"]),
        lambda n: train_only(n, ["image_encoder.blocks.0.norm1"]),
    ],
    ids=["everything", "adapters", "patches", "positions", "first norm"],
)
def test_a_network_whose_first_block_is_trained_has_none(prepare):
    with pytest.raises(InputError, match=r"cached_views keeps what the frozen blocks .* the first block is trained"):
        FrozenPrefix(prepare(EfficientSAM("vitt", 64)))


def test_its_name_tells_weights_sizes_and_depths_apart():
    names = set()
    for size, last, change in ((64, 3, 0), (64, 3, 0.1), (64, 4, 0), (128, 3, 0)):
        network = late(recipe_network("vitt", size), last)
        network.image_encoder.blocks[2].norm1.bias.data += change
        names.add(FrozenPrefix(network).fingerprint())
    assert len(names) == 4
    assert FrozenPrefix(late(recipe_network("vitt", 64), 3)).fingerprint() in names


def test_what_is_trained_is_no_part_of_its_name():
    network = late(recipe_network("vitt", 64), 3)
    before = FrozenPrefix(network).fingerprint()
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 1
    assert FrozenPrefix(network).fingerprint() == before


class Saved:
    """Count the bytes that autograd keeps for the backward pass, parameters left out."""

    def __init__(self, network):
        self.own = {p.untyped_storage().data_ptr() for p in network.parameters()}
        self.seen = {}

    def __call__(self, tensor):
        if tensor.untyped_storage().data_ptr() not in self.own:
            self.seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor


def bytes_kept(prepare):
    network = prepare(recipe_network("vitt", 64)).train()
    saved = Saved(network)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        network.encode_image(recipe_images(1))
    return sum(saved.seen.values())


def test_no_activations_are_kept_below_the_first_trained_module():
    kept = [bytes_kept(lambda n, k=k: late(n, k)) for k in (12, 6, 3, 1)]
    assert kept == sorted(kept, reverse=True) and kept[3] < 0.25 * kept[0]
    assert kept[1] == pytest.approx(kept[0] / 2, rel=0.2)
    assert bytes_kept(lambda n: train_only(n, ["mask_decoder"])) == 0


def test_what_is_frozen_has_no_gradients_and_no_state_of_the_optimiser():
    network = train_only(recipe_network("vitt", 64), ["mask_decoder"]).train()
    optimizer = torch.optim.AdamW(parameter_groups(network, 0.01))
    simulator = TrainingSimulator(network, rounds=1, gradient_rounds=1, prefix=FrozenPrefix(network))
    features = simulator.prefix.start(recipe_images(1)).half()
    label = torch.zeros(1, 1, 64, 64)
    label[..., 10:30, 10:30] = 1
    rounds = simulator(features, torch.tensor([[[[20.0, 20.0]]]]), torch.tensor([[[1]]]), label)
    sum(logits.square().mean() + iou.square().mean() for logits, iou, *_ in rounds).backward()
    optimizer.step()
    trained = {id(p) for p in network.mask_decoder.parameters()}
    assert {id(p) for p in network.parameters() if p.grad is not None} <= trained
    assert {id(p) for p in optimizer.state} <= trained
