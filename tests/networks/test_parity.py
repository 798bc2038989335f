# SPDX-License-Identifier: Apache-2.0
"""The network computes what upstream's does: recorded outputs, and facts of the model one by one."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from scripts.networks import EfficientSAM, load_weights
from scripts.networks.two_way_transformer import TwoWayAttentionBlock
from tests.networks.recipe import FIXTURE, outputs, recipe_images, recipe_network, upstream_state

SIZE = (96, 120)  # height and width of the recipe's images
LABELS = {
    -1: "invalid_points",
    0: "background_embeddings",
    1: "point_embeddings",
    2: "bbox_top_left_embeddings",
    3: "bbox_bottom_right_embeddings",
}
NO_LABEL = 255  # adds nothing to the position


@pytest.fixture(scope="module")
def network():
    """A Ti network for 64 pixels, T = 4; tests leave it as it is."""
    return recipe_network("vitt", 64).requires_grad_(False)


def fourier(network, x, y):
    """Encode one position, given in 0..1, by upstream's formula."""
    row_x, row_y = network.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.double()
    phase = 2 * math.pi * ((2 * x - 1) * row_x + (2 * y - 1) * row_y)
    return torch.cat([phase.sin(), phase.cos()])


def token(network, point, label, size=SIZE):
    """Encode one point as the prompt encoder does."""
    tokens = network.prompt_encoder(torch.tensor([[point]]), torch.tensor([[label]]), size)
    return tokens[0, 0].double()


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("image_size", [256, 512])
@pytest.mark.parametrize("backbone", ["vitt", "vits"])
def test_outputs_are_those_recorded_when_the_code_reproduced_upstreams(backbone, image_size):
    expected = json.loads(FIXTURE.read_text())[f"{backbone}-{image_size}"]
    found = outputs(backbone, image_size, torch.float32)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name], torch.tensor(values), atol=1e-4, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
        )


def upstreams_decoding(network, embeddings, points, labels):
    """Decode one image's objects without anything that upstream has not."""
    encoder = network.prompt_encoder
    points, missing = encoder.rescale(points.flatten(0, 1), labels.flatten(0, 1), SIZE), 6 - points.shape[2]
    points, labels = F.pad(points, [0, 0, 0, missing], value=-1.0), F.pad(labels.flatten(0, 1), [0, missing], value=-1)
    tokens = encoder.pe_layer((points + 0.5) / network.image_size)
    for label, name in LABELS.items():
        if label != 0:
            tokens = tokens + getattr(encoder, name).weight * (labels == label).unsqueeze(-1)
    return network.mask_decoder(embeddings.expand(len(points), -1, -1, -1), encoder.dense_pe(), tokens)


@pytest.mark.parametrize("mask", [None, 0.0, 1.0, -100.0, 1e6], ids=lambda mask: f"mask {mask}")
@pytest.mark.parametrize("labels", [(1, 1), (1, 0), (0, 0), (2, 3), (0, -1)], ids=str)
def test_with_upstreams_checkpoint_outputs_are_upstreams_whatever_is_added(tmp_path, labels, mask):
    path = tmp_path / "efficient_sam_vitt.pt"
    torch.save({"model": upstream_state(EfficientSAM("vitt", 64))}, path)
    network = load_weights(EfficientSAM("vitt", 64), path).eval().requires_grad_(False)
    path.unlink()
    points, labels = torch.tensor([[[[31.0, 40.0], [95.0, 62.0]], [[12.0, 20.0], [100.0, 81.0]]]]), torch.tensor(labels)
    labels = labels.expand(1, 2, 2)
    embeddings = network.encode_image(recipe_images(1))
    prompt = None if mask is None else mask * torch.randn(1, 2, 1, 16, 16)
    logits, iou = network.decode_all(embeddings, points, labels, SIZE, prompt)
    expected_logits, expected_iou = upstreams_decoding(network, embeddings, points, labels)
    # not bit by bit: some processors round otherwise where tensors lie differently in memory
    torch.testing.assert_close(logits[0], expected_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(iou[0], expected_iou, rtol=1e-5, atol=1e-5)


def test_the_recipes_upstream_checkpoint_has_upstreams_278_entries():
    assert len(upstream_state(EfficientSAM("vitt", 64))) == 278


@pytest.mark.parametrize("image_size", [64, 256])
@pytest.mark.parametrize("size", [(64, 64), (96, 120), (31, 500)])
def test_half_a_pixel_is_added_on_the_networks_grid_not_the_images(image_size, size):
    network = recipe_network("vitt", image_size)
    x, y = 11.0, 23.5
    expected = fourier(
        network, (x / size[1] * image_size + 0.5) / image_size, (y / size[0] * image_size + 0.5) / image_size
    )
    close(token(network, [x, y], NO_LABEL, size), expected)


@pytest.mark.parametrize(
    ("point", "xy"), [([-7.0, 20.0], (-1, None)), ([30.0, -0.1], (None, -1)), ([-3.0, -90.0], (-1, -1))]
)
def test_each_negative_coordinate_becomes_minus_one_on_its_own(network, point, xy):
    x = point[0] * 64 / SIZE[1] if xy[0] is None else xy[0]
    y = point[1] * 64 / SIZE[0] if xy[1] is None else xy[1]
    close(token(network, point, NO_LABEL), fourier(network, (x + 0.5) / 64, (y + 0.5) / 64))


@pytest.mark.parametrize("label", [-2, -1, 0, 1, 2, 3, 5, 255])
def test_label_adds_its_own_embedding_or_nothing(label):
    network = recipe_network("vitt", 64, corrections=True)
    added = token(network, [40.0, 33.0], label) - fourier(
        network, (40 * 64 / 120 + 0.5) / 64, (33 * 64 / 96 + 0.5) / 64
    )
    embedding = getattr(network.prompt_encoder, LABELS[label]).weight[0] if label in LABELS else torch.zeros(256)
    close(added, embedding.double())


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 40])
def test_prompt_fills_six_slots_or_more_with_padding_tokens_last(network, count):
    points, labels = torch.rand(3, count, 2) * 90, torch.ones(3, count, dtype=torch.long)
    tokens = network.prompt_encoder(points, labels, SIZE)
    assert tokens.shape == (3, max(count, 6), 256)
    padding = fourier(network, -0.5 / 64, -0.5 / 64) + network.prompt_encoder.invalid_points.weight[0]
    for slot in range(count, 6):
        close(tokens[:, slot].double(), padding.expand(3, 256))


def test_padding_takes_part_in_attention_and_given_padding_is_as_good_as_added(network):
    embeddings = network.encode_image(recipe_images(1))
    points, labels = torch.tensor([[[[30.0, 40.0]]]]), torch.tensor([[[1]]])
    expected = network.decode(embeddings, points, labels, SIZE)
    for slots in (3, 6):
        padded = F.pad(points, [0, 0, 0, slots - 1], value=-1.0), F.pad(labels, [0, slots - 1], value=-1)
        for found, wanted in zip(network.decode(embeddings, *padded, SIZE), expected):
            assert torch.equal(found, wanted)
    seven = F.pad(points, [0, 0, 0, 6], value=-1.0), F.pad(labels, [0, 6], value=-1)
    assert (network.decode(embeddings, *seven, SIZE)[0] - expected[0]).abs().max() > 1e-3


def test_dense_encoding_lists_cells_row_by_row_with_x_along_columns(network):
    dense = network.prompt_encoder.dense_pe()
    assert dense.shape == (1, 16, 256)
    for row in range(4):
        for column in range(4):
            close(dense[0, 4 * row + column].double(), fourier(network, (column + 0.5) / 4, (row + 0.5) / 4))


@pytest.mark.parametrize(
    ("name", "eps", "shape", "dims"),
    [
        ("image_encoder.blocks.0.norm1", 1e-6, (5, 192), 1),
        ("image_encoder.blocks.11.norm2", 1e-6, (5, 192), 1),
        ("image_encoder.neck.1", 1e-6, (2, 256, 3, 3), 1),
        ("image_encoder.neck.3", 1e-6, (2, 256, 3, 3), 1),
        ("mask_decoder.transformer.layers.0.norm1", 1e-5, (5, 256), 1),
        ("mask_decoder.transformer.layers.1.norm4", 1e-5, (5, 256), 1),
        ("mask_decoder.transformer.norm_final_attn", 1e-5, (5, 256), 1),
        ("mask_decoder.final_output_upscaling_layers.0.1", 1e-5, (2, 64, 3, 3), (1, 2, 3)),
    ],
)
def test_norm_divides_by_the_deviation_with_upstreams_eps(network, name, eps, shape, dims):
    norm = network.get_submodule(name)
    x = 1e-3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()  # variance as small as eps
    per_channel = [1, -1] + [1] * (len(shape) - 2)
    normed = (x - x.mean(dims, keepdim=True)) / (x.var(dims, unbiased=False, keepdim=True) + eps).sqrt()
    expected = normed * norm.weight.double().view(per_channel) + norm.bias.double().view(per_channel)
    close(norm(x.float()).double(), expected)


@pytest.mark.parametrize("keep_query_pe", [False, True])
def test_two_way_block_keeps_the_residual_around_self_attention(keep_query_pe):
    """SAM's first layer drops its queries there; its second keeps the prompt encoding out of the residual stream."""
    block = TwoWayAttentionBlock(dim=16, num_heads=2, mlp_dim=32, keep_query_pe=keep_query_pe)
    for layer in (
        block.self_attn.out_proj,
        block.cross_attn_token_to_image.out_proj,
        block.mlp.fc,
        block.cross_attn_image_to_token.out_proj,
    ):
        torch.nn.init.zeros_(layer.weight)  # what is left of the block is its residual stream
        torch.nn.init.zeros_(layer.bias)
    queries, keys, query_pe, key_pe = torch.rand(4, 1, 5, 16)
    found_queries, found_keys = block(queries, keys, query_pe, key_pe)
    stream = queries + query_pe if keep_query_pe else queries
    close(found_queries, block.norm3(block.norm2(block.norm1(stream))))
    close(found_keys, block.norm4(keys))


def test_two_way_transformer_adds_the_prompt_encoding_to_the_stream_in_the_second_layer_only(network):
    assert [layer.keep_query_pe for layer in network.mask_decoder.transformer.layers] == [False, True]


@pytest.mark.parametrize("leading", [(2,), (2, 3), (2, 3, 4)])
def test_upscaling_is_bicubic_without_aligned_corners(network, leading):
    logits = torch.randn(*leading, 16, 16)
    found = network.upscale(logits, (40, 56))
    assert found.shape == (*leading, 40, 56)
    one = F.interpolate(logits.flatten(0, -3)[None], size=(40, 56), mode="bicubic", align_corners=False)
    assert torch.equal(found.flatten(0, -3), one[0])


def test_position_embedding_is_resized_bicubically_and_its_class_slot_is_never_used():
    network = recipe_network("vitt", 64).requires_grad_(False)
    images = recipe_images(1)
    expected = network.encode_image(images)
    network.image_encoder.pos_embed[:, 0] = 1e6
    assert torch.equal(network.encode_image(images), expected)
    network.image_encoder.pos_embed[:, 1] += 1
    assert not torch.equal(network.encode_image(images), expected)
    grid = network.image_encoder.pos_embed[:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    resized = (
        F.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).reshape(1, 16, 192)
    )
    tokens = network.image_encoder.patch_embed(network.preprocess(images)) + resized
    seen = []
    network.image_encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.encode_image(images)
    close(seen[0], tokens)


def test_position_embedding_is_used_as_it_is_at_224_pixels():
    encoder = recipe_network("vitt", 224).image_encoder
    assert torch.equal(encoder.resize_position_embedding(), encoder.pos_embed[:, 1:])


def test_a_pass_in_mixed_precision_leaves_no_trace_in_the_next_one():
    images, points, labels = recipe_images(1), torch.tensor([[[[30.0, 40.0]]]]), torch.tensor([[[1]]])
    network = recipe_network("vitt", 64).requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        network(images, points, labels)
    assert torch.equal(network(images, points, labels), recipe_network("vitt", 64)(images, points, labels))


def test_mixed_precision_does_not_move_a_point(network):
    expected = token(network, [40.0, 33.0], 1)
    with torch.autocast("cpu", torch.bfloat16):
        close(token(network, [40.0, 33.0], 1), expected)
