# SPDX-License-Identifier: Apache-2.0
"""Adapters: invisible until trained, of the right size, in the right place, and the only thing trained."""

import copy
import logging

import pytest
import torch
import torch.nn.functional as F

from scripts.errors import InputError
from scripts.networks import (
    EfficientSAM,
    adapter_state_dict,
    add_adapters,
    disable_adapters,
    merge_adapters,
    parameter_groups,
    train_only,
    trainable_parameters,
)
from scripts.networks.adapters import Bottleneck, adapter_parameters, adapter_settings, read_adapter_settings
from tests.networks.recipe import BOTH, ENCODER, recipe_images, recipe_network

ADDED = {"vitt": 448_128, "vits": 1_780_992}
ADDED_TO_DECODER = 6 * (2 * 256 * 64 + 256 + 64)  # two layers of three, a quarter of 256 wide
DECODER_PLACES = ("cross_attn_token_to_image", "mlp", "cross_attn_image_to_token")
POINTS, LABELS = (
    torch.tensor([[[[31.0, 40.0], [95.0, 62.0]], [[12.0, 20.0], [100.0, 81.0]]]]),
    torch.tensor([[[1, 0], [2, 3]]]),
)


def added_parameters(network):
    return {name: p for name, p in network.named_parameters() if ".bottleneck." in name}


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder too"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("backbone", ["vitt", "vits"])
def test_freshly_adapted_network_equals_the_plain_one(backbone, training, decoder):
    network = recipe_network(backbone, 64).requires_grad_(False).train(training)
    inputs = recipe_images(1), POINTS, LABELS
    plain = network(*inputs)
    adapted = add_adapters(network, BOTH if decoder else ENCODER)(*inputs)
    assert added_parameters(network)
    if training:
        assert torch.equal(adapted[0], plain[0]) and torch.equal(adapted[1], plain[1])
    else:
        assert torch.equal(adapted, plain)


@pytest.mark.parametrize("backbone", ["vitt", "vits"])
def test_adapters_add_their_count_and_leave_the_rest_as_it_was(backbone):
    network = EfficientSAM(backbone, 64)
    before = set(network.state_dict())
    assert add_adapters(network, ENCODER) is network
    assert sum(p.numel() for p in added_parameters(network).values()) == ADDED[backbone]
    assert set(network.state_dict()) == before | set(added_parameters(network))
    assert len(added_parameters(network)) == 12 * 2 * 4


@pytest.mark.parametrize("backbone", ["vitt", "vits"])
def test_adapters_of_the_decoder_come_on_top_of_the_encoders(backbone):
    network = EfficientSAM(backbone, 64)
    before = set(network.state_dict())
    add_adapters(network, BOTH)
    assert sum(p.numel() for p in added_parameters(network).values()) == ADDED[backbone] + ADDED_TO_DECODER
    assert set(network.state_dict()) == before | set(added_parameters(network))
    names = {name.rsplit(".", 2)[0] for name in added_parameters(network) if name.startswith("mask_decoder.")}
    layer = "mask_decoder.transformer.layers"
    assert names == {f"{layer}.{i}.{place}.bottleneck" for i in range(2) for place in DECODER_PLACES}


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("place", [0, 1])
def test_adapters_of_the_decoder_follow_the_cross_attentions_and_stand_beside_the_mlp(place, scale):
    network = add_adapters(EfficientSAM("vitt", 64), [{"scale": scale}])
    for parameter in added_parameters(network).values():
        torch.nn.init.normal_(parameter, std=0.1)
    block = network.mask_decoder.transformer.layers[place]

    def bottleneck(adapter, x):
        return F.linear(F.gelu(F.linear(x, *adapter.down.parameters())), *adapter.up.parameters())

    queries, keys, query_pe, key_pe = (torch.randn(2, n, 256) for n in (7, 16, 7, 16))
    stream = queries + query_pe if place else queries
    stream = block.norm1(stream + block.self_attn(stream, stream, stream))
    to_image, mlp, to_token = (block.get_submodule(place) for place in DECODER_PLACES)
    attended = to_image.forward(stream + query_pe, keys + key_pe, keys)
    stream = block.norm2(stream + attended + bottleneck(to_image.bottleneck, attended))
    stream = block.norm3(stream + mlp.forward(stream) + scale * bottleneck(mlp.bottleneck, stream))
    attended = to_token.forward(keys + key_pe, stream + query_pe, stream)
    image = block.norm4(keys + attended + bottleneck(to_token.bottleneck, attended))
    found_queries, found_keys = block(queries, keys, query_pe, key_pe)
    torch.testing.assert_close(found_queries, stream, atol=1e-5, rtol=0)
    torch.testing.assert_close(found_keys, image, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("ratio", "width"), [(0.25, 48), (0.5, 96), (0.1, 19), (1.0, 192), (0.001, 1)])
def test_bottleneck_is_a_ratio_of_the_width(ratio, width):
    network = add_adapters(EfficientSAM("vitt", 64), [{"ratio": ratio}])
    for block in network.image_encoder.blocks:
        for adapter in (block.attn.bottleneck, block.mlp.bottleneck):
            assert adapter.down.weight.shape == (width, 192)
            assert adapter.up.weight.shape == (192, width)
    assert network.eval()(recipe_images(1)).shape == (1, 1, 96, 120)


def test_first_weights_start_the_last_layer_at_zero_and_the_first_small():
    torch.manual_seed(0)
    adapter = Bottleneck(192)
    assert not adapter.up.weight.any() and not adapter.up.bias.any() and not adapter.down.bias.any()
    assert adapter.down.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_space_adapter_follows_the_attention_and_scaled_mlp_adapter_stands_beside_the_mlp(scale):
    network = add_adapters(EfficientSAM("vitt", 64), [{"scale": scale}])
    block = network.image_encoder.blocks[3]
    for parameter in added_parameters(network).values():
        torch.nn.init.normal_(parameter, std=0.1)

    def bottleneck(adapter, x):
        return F.linear(F.gelu(F.linear(x, *adapter.down.parameters())), *adapter.up.parameters())

    x = torch.randn(2, 16, 192)
    attended = block.attn.forward(block.norm1(x))
    stream = x + attended + bottleneck(block.attn.bottleneck, attended)
    normed = block.norm2(stream)
    expected = stream + block.mlp.forward(normed) + scale * bottleneck(block.mlp.bottleneck, normed)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=0)


def test_scale_of_the_mlp_adapter_is_a_half_unless_asked_otherwise():
    block = add_adapters(EfficientSAM("vitt", 64), ENCODER).image_encoder.blocks[0]
    assert (block.attn.bottleneck.scale, block.mlp.bottleneck.scale) == (1.0, 0.5)


def test_trained_adapters_change_the_masks():
    inputs = recipe_images(1), POINTS, LABELS
    plain, adapted = recipe_network("vitt", 64), recipe_network("vitt", 64, adapters=True)
    assert (plain(*inputs) - adapted(*inputs)).abs().max() > 0.1


def test_adapters_are_refused_twice():
    network = add_adapters(EfficientSAM("vitt", 64), ENCODER)
    names = set(network.state_dict())
    with pytest.raises(ValueError, match="has adapters already"):
        add_adapters(network)
    assert set(network.state_dict()) == names


@pytest.mark.parametrize(
    ("parts", "trained"),
    [
        ((), (".bottleneck.",)),
        (("mask_decoder",), (".bottleneck.", "mask_decoder.")),
        (["prompt_encoder", "neck"], (".bottleneck.", "prompt_encoder.", "image_encoder.neck.")),
    ],
)
def test_further_parts_may_be_trained_beside_the_adapters(parts, trained):
    network = train_only(add_adapters(EfficientSAM("vitt", 64), ENCODER), ["adapters", *parts])
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == any(part in name for part in trained), name


@pytest.mark.parametrize(("parts", "trained"), [(["mask_decoder"], 4_058_340), (["norm1", "norm2"], None), ([], 0)])
def test_train_only_frees_the_parts_named_and_freezes_all_others(parts, trained):
    network = EfficientSAM("vitt", 64)
    next(network.parameters()).requires_grad_(False)
    assert train_only(network, parts) is network
    free = {name: p.numel() for name, p in network.named_parameters() if p.requires_grad}
    assert set(free) == {name for name, _ in network.named_parameters() if any(f"{part}." in name for part in parts)}
    if trained is not None:
        assert sum(free.values()) == trained


@pytest.mark.parametrize("part", ["maskdecoder", "decoder", "adapters", "mask_decoder.", "image_encoder.blocks.12"])
def test_a_part_that_the_network_has_not_is_refused(part):
    with pytest.raises(InputError, match=f"the network has no part '{part}' to train"):
        train_only(EfficientSAM("vitt", 64), ["mask_decoder", part])


def test_train_only_leaves_the_network_as_it_was_when_it_refuses():
    network = EfficientSAM("vitt", 64)
    with pytest.raises(ValueError):
        train_only(network, ["mask_decoder", "maskdecoder"])
    assert all(p.requires_grad for p in network.parameters())


def test_one_part_may_be_named_without_a_list():
    network = train_only(EfficientSAM("vitt", 64), "mask_decoder")
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {"mask_decoder"}


def test_nothing_named_trains_everything():
    network = train_only(EfficientSAM("vitt", 64).requires_grad_(False), None)
    assert all(p.requires_grad for p in network.parameters())


def test_adapters_take_the_precision_of_the_network():
    network = add_adapters(recipe_network("vitt", 64).double())
    assert network(recipe_images(1).double(), POINTS.double(), LABELS).dtype == torch.float64


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda n: n, "parameters: 10,228,400 trained (100.0 %), 0 frozen, 0 added by adapters"),
        (
            lambda n: add_adapters(n, ENCODER),
            "parameters: 448,128 trained (4.2 %), 10,228,400 frozen, 448,128 added by adapters",
        ),
        (
            lambda n: train_only(add_adapters(n, ENCODER), ["adapters", "mask_decoder"]),
            "parameters: 4,506,468 trained (42.2 %), 6,170,060 frozen, 448,128 added by adapters",
        ),
        (
            lambda n: train_only(add_adapters(n, BOTH), ["adapters", "mask_downscaling", "no_mask_embed"]),
            "parameters: 651,596 trained (6.0 %), 10,223,460 frozen, 646,656 added by adapters",
        ),
    ],
    ids=["plain", "adapters", "adapters and decoder", "adapters of the decoder and mask feedback"],
)
def test_trainable_parameters_are_listed_and_counted_in_the_log(prepare, message, caplog):
    network = prepare(EfficientSAM("vitt", 64))
    with caplog.at_level(logging.INFO, logger="scripts.networks"):
        listed = trainable_parameters(network)
    assert caplog.messages == [message]
    assert {id(p) for p in listed} == {id(p) for p in network.parameters() if p.requires_grad}


def test_nothing_left_to_train_is_refused():
    with pytest.raises(ValueError, match="every parameter is frozen"):
        trainable_parameters(EfficientSAM("vitt", 64).requires_grad_(False))


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder too"])
def test_optimizer_steps_move_every_adapter_and_nothing_else(decoder):
    network = add_adapters(recipe_network("vitt", 64), BOTH if decoder else ENCODER).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-3, weight_decay=0.1
    )  # given all, it must still move only adapters
    for _ in range(2):  # the second step reaches the layers behind those that started at zero
        optimizer.zero_grad()
        logits, _ = network(recipe_images(1), POINTS, LABELS)
        logits.square().mean().backward()
        optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(added_parameters(network))


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder too"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_without_its_adapters_a_trained_network_is_the_base_bit_for_bit(training, decoder):
    inputs = recipe_images(1), POINTS, LABELS
    plain = recipe_network("vitt", 64).train(training)
    network = recipe_network("vitt", 64, adapters=True, decoder=decoder).train(training)

    def outputs(of):
        result = of(*inputs)
        return result if training else [result]

    adapted = outputs(network)
    with disable_adapters(network) as base:
        assert base is network
        assert all(torch.equal(*pair) for pair in zip(outputs(network), outputs(plain)))
    assert all(torch.equal(*pair) for pair in zip(outputs(network), adapted))
    assert not torch.equal(adapted[0], outputs(plain)[0])


def test_adapters_come_back_after_an_error():
    network = add_adapters(EfficientSAM("vitt", 64), ENCODER)
    with pytest.raises(KeyError), disable_adapters(network):
        raise KeyError
    assert network.image_encoder.blocks[0].attn.bottleneck.enabled


def test_modules_name_their_own_parameters():
    network = add_adapters(EfficientSAM("vitt", 64), BOTH)
    assert set(adapter_parameters(network)) == set(added_parameters(network))
    assert adapter_parameters(EfficientSAM("vitt", 64)) == []


def test_state_of_adapters_is_what_was_trained():
    network = train_only(add_adapters(EfficientSAM("vitt", 64), ENCODER), ["adapters", "iou_token"])
    assert set(adapter_state_dict(network)) == {*added_parameters(network), "mask_decoder.iou_token.weight"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "lora2"}, "is one of bottleneck, lora, adalora, got 'lora2'"),
        ({"rank": 4}, "of kind bottleneck have no rank"),
        ({"kind": "lora", "rank": "4"}, "rank of adapters is a number, got '4'"),
        ({"targets": "*"}, r"targets of adapters are a list of names, .*, got '\*'"),
        ({"targets": []}, "targets of adapters are a list of names"),
        ({"targets": [1]}, "targets of adapters are a list of names"),
    ],
    ids=str,
)
def test_an_unknown_kind_or_number_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        adapter_settings(**settings)


@pytest.mark.parametrize("kind", ["bottleneck", "lora"])
def test_targets_that_match_nothing_are_refused(kind):
    with pytest.raises(
        InputError, match=r"has no place 'image_encoder\.neck\.\*' for adapters: it has \d+, such as image_"
    ):
        add_adapters(EfficientSAM("vitt", 64), [{"kind": kind, "targets": ["image_encoder.*", "image_encoder.neck.*"]}])


def test_targets_choose_blocks_by_their_names():
    network = add_adapters(EfficientSAM("vitt", 64), [{"targets": ["image_encoder.blocks.1[01].*", "*.layers.1.mlp"]}])
    expected = {f"image_encoder.blocks.{i}.{place}" for i in (10, 11) for place in ("attn", "mlp")}
    expected.add("mask_decoder.transformer.layers.1.mlp")
    assert {name.split(".bottleneck")[0] for name in added_parameters(network)} == expected


@pytest.mark.parametrize(
    "adapters",
    [
        ENCODER,
        BOTH,
        [{"ratio": 0.5}],
        [{"kind": "lora", "rank": 2, "keys": True}],
        [{"kind": "bottleneck"}, {"kind": "lora"}],
    ],
    ids=str,
)
def test_adapters_are_recognised_by_their_tensors(adapters):
    network = add_adapters(EfficientSAM("vitt", 64), adapters)
    again = add_adapters(EfficientSAM("vitt", 64), read_adapter_settings(network.state_dict()))
    assert {name: value.shape for name, value in again.state_dict().items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }
    assert read_adapter_settings(EfficientSAM("vitt", 64).state_dict()) is None


def test_matrices_decay_and_biases_norms_and_embeddings_do_not():
    network = train_only(EfficientSAM("vitt", 64), ["mask_decoder"])
    names = {id(p): name for name, p in network.named_parameters()}
    decay, kept = ([names[id(p)] for p in group["params"]] for group in parameter_groups(network, 0.05))
    assert set(decay) | set(kept) == {name for name, p in network.named_parameters() if p.requires_grad}
    assert not set(decay) & set(kept)
    assert all(name.endswith("weight") for name in decay)
    assert {"mask_decoder.mask_tokens.weight", "mask_decoder.transformer.norm_final_attn.weight"} <= set(kept)
    assert [group["weight_decay"] for group in parameter_groups(network, 0.05)] == [0.05, 0.0]


def trained_lora(keys=False):
    network = add_adapters(recipe_network("vitt", 64), [{"kind": "lora", "keys": keys}])
    torch.manual_seed(0)
    for name in adapter_parameters(network):
        torch.nn.init.normal_(network.get_parameter(name), std=0.2)
    return network


def test_lora_adds_the_count_of_medical_sam_adapter():
    network = add_adapters(EfficientSAM("vitt", 64), [{"kind": "lora"}])
    assert sum(network.get_parameter(name).numel() for name in adapter_parameters(network)) == 129_024


@pytest.mark.parametrize("keys", [False, True])
def test_lora_adds_a_product_of_two_small_matrices_to_queries_values_and_mlps(keys):
    network = trained_lora(keys)
    block, x = network.image_encoder.blocks[4], torch.randn(2, 5, 192)
    qkv, fc1 = block.attn.qkv, block.mlp.fc1
    delta = torch.zeros(3, 192, 192)
    for index, part in enumerate((0, 1, 2) if keys else (0, 2)):
        delta[part] = 0.25 * qkv.lora_b[index] @ qkv.lora_a[index]
    expected = F.linear(x, qkv.weight + delta.flatten(0, 1), qkv.bias)
    torch.testing.assert_close(qkv(x), expected, atol=1e-5, rtol=0)
    expected = F.linear(x, fc1.weight + 0.25 * fc1.lora_b[0] @ fc1.lora_a[0], fc1.bias)
    torch.testing.assert_close(fc1(x), expected, atol=1e-5, rtol=0)
    assert type(block.attn.proj) is torch.nn.Linear


def test_kinds_combine_and_are_invisible_until_trained():
    network = recipe_network("vitt", 64).requires_grad_(False)
    inputs = recipe_images(1), POINTS, LABELS
    plain = network(*inputs)
    add_adapters(network, [{"kind": "bottleneck"}, {"kind": "lora"}])
    assert torch.equal(network(*inputs), plain)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for name in adapter_parameters(network):
        torch.nn.init.normal_(network.get_parameter(name), std=0.1)
    assert not torch.equal(network(*inputs), plain)
    with disable_adapters(network):
        assert torch.equal(network(*inputs), plain)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(adapter_parameters(network))
    assert not any(".bottleneck." in name and "lora" in name for name in before)


def test_lora_merges_into_plain_layers_and_bottlenecks_stay():
    network = trained_lora(keys=True)
    inputs, names = (recipe_images(1), POINTS, LABELS), set(EfficientSAM("vitt", 64).state_dict())
    adapted = network(*inputs)
    assert set(merge_adapters(network).state_dict()) == names
    torch.testing.assert_close(network(*inputs), adapted, atol=1e-5, rtol=0)
    stays = recipe_network("vitt", 64, adapters=True)
    names = set(stays.state_dict())
    assert set(merge_adapters(stays).state_dict()) == names


@pytest.mark.parametrize("adapters", [BOTH, [{"kind": "lora"}], [{"kind": "bottleneck"}, {"kind": "lora"}]], ids=str)
def test_adapted_networks_are_scripted_and_copied(adapters):
    network = add_adapters(recipe_network("vitt", 64), adapters)
    for name in adapter_parameters(network):
        torch.nn.init.normal_(network.get_parameter(name), std=0.05)
    image = recipe_images(1)
    expected = network(image)
    assert torch.equal(copy.deepcopy(network)(image), expected)
    torch.testing.assert_close(torch.jit.script(network)(image), expected, atol=1e-5, rtol=0)
