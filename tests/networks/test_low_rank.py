# SPDX-License-Identifier: Apache-2.0
"""LoRA and AdaLoRA: closed forms, what peft gives, merging, and where they stand."""

import json

import pytest
import torch
import torch.nn.functional as F

from scripts.errors import InputError
from scripts.networks import EfficientSAM, add_adapters, disable_adapters, merge_adapters, train_only
from scripts.networks.adapters import adapter_modules, adapter_parameters, adapter_settings
from scripts.networks.adapters.adalora import adalora_layers, orthogonality
from tests.networks.peft_recipe import FIXTURE, LAYERS, RANK, Small, batch, factor
from tests.networks.recipe import recipe_images, recipe_network

ADALORA = [{"kind": "adalora"}]
PEFT = json.loads(FIXTURE.read_text())


def trained(adapters):
    network = add_adapters(recipe_network("vitt", 64), adapters)
    torch.manual_seed(0)
    for name in adapter_parameters(network):
        torch.nn.init.normal_(network.get_parameter(name), std=0.2)
    return network


def small(kind, **numbers):
    """Put adapters with the oracle's first numbers into the oracle's network."""
    network = add_adapters(Small(), [{"kind": kind, "targets": ["*"], "rank": RANK, **numbers}])
    for layer in LAYERS:
        module = network.get_submodule(f"mlp.{layer}")
        for part in "ab":
            own = module.get_parameter(f"{kind}_{part}")
            own.data.copy_(factor(part, layer, tuple(own.shape[-2:])))
    return network


def test_lora_gives_what_peft_gives_and_merges_to_the_same_weights():
    network = small("lora")
    torch.testing.assert_close(network(batch(0)[0]), torch.tensor(PEFT["lora"]), atol=1e-6, rtol=1e-5)
    merged = merge_adapters(network)
    for layer in LAYERS:
        weight = merged.get_submodule(f"mlp.{layer}").weight
        torch.testing.assert_close(weight, torch.tensor(PEFT["merged"][layer]), atol=1e-6, rtol=0)


def test_adalora_adds_a_decomposition_to_whole_layers():
    network = trained([{"kind": "adalora", "rank": 5, "alpha": 2.0}])
    block, x = network.image_encoder.blocks[4], torch.randn(2, 5, 192)
    for layer, given in ((block.attn.qkv, x), (block.mlp.fc1, x), (block.mlp.fc2, torch.randn(2, 5, 768))):
        delta = 0.4 * layer.adalora_b @ torch.diag(layer.adalora_e) @ layer.adalora_a
        torch.testing.assert_close(layer(given), F.linear(given, layer.weight + delta, layer.bias), atol=2e-5, rtol=0)
    assert type(block.attn.proj) is torch.nn.Linear


@pytest.mark.parametrize(("rank", "count"), [(4, 129_168), (6, 193_752)])
def test_adalora_adds_the_count_of_medical_sam_adapter(rank, count):
    network = add_adapters(EfficientSAM("vitt", 64), [{"kind": "adalora", "rank": rank}])
    assert sum(network.get_parameter(name).numel() for name in adapter_parameters(network)) == count


def test_fresh_adalora_changes_nothing_and_is_switched_off():
    network, image = recipe_network("vitt", 64), recipe_images(1)
    with torch.no_grad():
        plain = network(image)
        add_adapters(network, ADALORA)
        assert all(module.is_fresh() for module in adapter_modules(network).values())
        assert torch.equal(network(image), plain)
        for name in adapter_parameters(network):
            torch.nn.init.normal_(network.get_parameter(name), std=0.2)
        assert not torch.equal(network(image), plain)
        with disable_adapters(network):
            assert torch.equal(network(image), plain)


def test_orthogonality_is_the_mean_distance_of_all_factors():
    network = small("adalora")
    layers = list(adalora_layers(network).values())
    eye = torch.eye(RANK)
    factors = [f for layer in layers for f in (layer.adalora_a, layer.adalora_b.T)]
    expected = sum((f @ f.T - eye).square().sum().sqrt() for f in factors) / len(factors)
    torch.testing.assert_close(orthogonality(layers), expected)
    for layer in layers:
        layer.adalora_a.data = torch.linalg.qr(layer.adalora_a.data.T)[0].T
        layer.adalora_b.data = torch.linalg.qr(layer.adalora_b.data)[0]
    assert orthogonality(layers).item() < 1e-6


@pytest.mark.parametrize("adapters", [[{"kind": "lora", "keys": True}], ADALORA], ids=["lora", "adalora"])
def test_merging_and_back_gives_the_base(adapters):
    plain, network = recipe_network("vitt", 64), trained(adapters)
    deltas = {name: module.merge().weight - module.weight for name, module in adapter_modules(network).items()}
    image = recipe_images(1)
    adapted = network(image)
    merged = merge_adapters(network)
    assert set(merged.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(merged(image), adapted, atol=2e-5, rtol=0)
    for name, delta in deltas.items():
        assert delta.abs().max() > 1e-3
        back = merged.get_submodule(name).weight - delta
        torch.testing.assert_close(back, plain.get_submodule(name).weight, atol=1e-6, rtol=0)
    torch.jit.script(merged)


@pytest.mark.parametrize("kind", ["bottleneck", "lora", "adalora"])
@pytest.mark.parametrize(("last_blocks", "expected"), [(3, {9, 10, 11}), (12, set(range(12))), (40, set(range(12)))])
def test_last_blocks_alone_are_adapted_and_the_decoder_as_before(kind, last_blocks, expected):
    adapters = [{"kind": kind, "targets": ["*"], "last_blocks": last_blocks}]
    names = adapter_modules(add_adapters(EfficientSAM("vitt", 64), adapters))
    assert {int(name.split(".")[2]) for name in names if name.startswith("image_encoder.blocks.")} == expected
    every = adapter_modules(add_adapters(EfficientSAM("vitt", 64), [{"kind": kind, "targets": ["*"]}]))
    assert [name for name in names if "decoder" in name] == [name for name in every if "decoder" in name]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("last_4_blocks", lambda name: name.startswith(tuple(f"image_encoder.blocks.{i}." for i in (8, 9, 10, 11)))),
        ("last_99_blocks", lambda name: name.startswith("image_encoder.blocks.")),
        (
            "norms",
            lambda name: any(
                part in name
                for part in (".norm", "neck.1.", "neck.3.", "layers.0.1.", "layers.1.1.", "scaling.1.", "scaling.4.")
            ),
        ),
        ("biases", lambda name: name.endswith(".bias")),
    ],
)
def test_words_for_parts_free_these_and_no_others(part, expected):
    network = train_only(EfficientSAM("vitt", 64), [part])
    free = {name for name, p in network.named_parameters() if p.requires_grad}
    assert free == {name for name, _ in network.named_parameters() if expected(name)}, part


def test_biases_leave_those_of_adapters_to_the_adapters():
    network = train_only(add_adapters(EfficientSAM("vitt", 64)), ["biases"])
    assert not any(network.get_parameter(name).requires_grad for name in adapter_parameters(network))


@pytest.mark.parametrize("part", ["last_0_blocks", "last__blocks", "last_-1_blocks", "norm"])
def test_words_that_name_nothing_are_refused(part):
    with pytest.raises(InputError, match=f"no part '{part}' to train"):
        train_only(EfficientSAM("vitt", 64), [part])


@pytest.mark.parametrize("name", ["rank", "target_rank", "last_blocks"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True], ids=str)
def test_numbers_that_count_are_whole(name, value):
    with pytest.raises(InputError, match=f"{name} of adapters is a whole number from 1 on, got {value}"):
        adapter_settings("adalora", **{name: value})
