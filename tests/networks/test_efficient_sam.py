# SPDX-License-Identifier: Apache-2.0
"""What EfficientSAM takes and gives: sizes, prompts, modes, errors, gradients, first weights, TorchScript."""

import copy
import io

import pytest
import torch
import torch.nn as nn

from scripts.networks import EfficientSAM, add_adapters, train_only
from tests.networks.recipe import BOTH, ENCODER, recipe_images, recipe_network

ENCODER_PARAMETERS = {"vitt": 6_163_840, "vits": 22_353_664}
UPSTREAMS_PARAMETERS = {"vitt": 10_223_204, "vits": 26_413_028}
ADDED_PARAMETERS = {  # what upstream has not
    "background_embeddings": 256,
    "no_mask_embed": 256,
    "mask_downscaling": 4_684,
}
SIZE = (96, 120)  # of the recipe's images


@pytest.fixture(scope="module")
def network():
    """A Ti network for 64 pixels; tests leave it as it is."""
    return recipe_network("vitt", 64).requires_grad_(False)


@pytest.fixture(scope="module")
def corrected():
    """The same, where background clicks and masks are trained, too."""
    return recipe_network("vitt", 64, corrections=True).requires_grad_(False)


def spread_prompts(batch=1, queries=1, count=3):
    """Give foreground points in many places of an image of 96 x 120 pixels, all different."""
    place = torch.arange(batch * queries * count, dtype=torch.float32)
    points = torch.stack([(37 * place + 11) % 120, (29 * place + 5) % 96], dim=-1)
    return points.reshape(batch, queries, count, 2), torch.ones(batch, queries, count, dtype=torch.long)


def mask_prompts(batch=1, queries=1, side=16):
    """Give low-resolution logits, all different."""
    generator = torch.Generator().manual_seed(0)
    return 5 * torch.randn(batch, queries, 1, side, side, generator=generator)


def added_part(name):
    """Name the added part that a parameter belongs to, or nothing."""
    return next((part for part in ADDED_PARAMETERS if name.startswith(f"prompt_encoder.{part}.")), None)


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("backbone", ["vitt", "vits"])
def test_parameters_and_state_dict_are_upstreams_and_the_added_parts(backbone):
    network = EfficientSAM(backbone, image_size=64)
    state = network.state_dict()
    assert len([name for name in state if not added_part(name)]) == 278
    assert len(state) == 278 + 12
    assert "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix" in state
    for part, parameters in ADDED_PARAMETERS.items():
        assert count(network.prompt_encoder.get_submodule(part)) == parameters, part
    assert count(network.image_encoder) == ENCODER_PARAMETERS[backbone]
    assert count(network.prompt_encoder) == 1_024 + sum(ADDED_PARAMETERS.values())
    assert count(network.mask_decoder) == 4_058_340
    assert count(network) == UPSTREAMS_PARAMETERS[backbone] + sum(ADDED_PARAMETERS.values())


def test_added_parts_end_in_zeros_and_the_layers_before_do_not():
    encoder = EfficientSAM("vitt", 64).prompt_encoder
    first, _, _, second, _, _, last = encoder.mask_downscaling
    for parameter in (encoder.background_embeddings.weight, encoder.no_mask_embed.weight, last.weight, last.bias):
        assert not parameter.any()
    for layer in (first, second):  # else no gradient would ever reach the last layer
        assert layer.weight.any()


def test_no_tensor_of_the_state_dict_depends_on_the_image_size():
    shapes = [{k: v.shape for k, v in EfficientSAM("vitt", size).state_dict().items()} for size in (64, 1024)]
    assert shapes[0] == shapes[1]


def test_upstreams_image_size_is_the_default():
    assert EfficientSAM().image_size == 1024


@pytest.mark.parametrize("image_size", [16, 80, 256, 512, 1024])
def test_grids_follow_the_image_size(image_size):
    network = recipe_network("vitt", image_size).requires_grad_(False)
    grid = image_size // 16
    embeddings = network.encode_image(recipe_images(1))
    assert embeddings.shape == (1, 256, grid, grid)
    logits, iou = network.decode(embeddings, *spread_prompts(), (96, 120))
    assert logits.shape == (1, 1, 3, 4 * grid, 4 * grid)
    assert iou.shape == (1, 1, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (64, 64), (16, 200), (300, 40)])
def test_masks_come_on_the_images_own_grid(network, size):
    assert network(recipe_images(2, 304, 200)[:, :, : size[0], : size[1]]).shape == (2, 1, *size)


def test_image_is_resized_bilinearly_without_antialias_then_normalised(network):
    rows = (
        torch.linspace(0, 1, 128).view(1, 1, 128, 1).expand(1, 3, 128, 128)
    )  # halved, each pixel is the mean of two rows
    found = network.preprocess(rows)
    assert found.shape == (1, 3, 64, 64)
    halved = (rows[:, :, ::2] + rows[:, :, 1::2])[..., :64] / 2
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        close(found[:, channel], (halved[:, channel] - mean) / std)
    thin = torch.zeros(1, 3, 256, 256)
    thin[:, :, ::4] = 1  # a quarter the size, samples fall between rows 1 and 2 of four: antialias would see row 0
    close(network.preprocess(thin), network.preprocess(torch.zeros(1, 3, 64, 64)))


def test_batch_of_several_objects_gives_what_each_gives_alone(network):
    images, (points, labels) = recipe_images(3), spread_prompts(3, 2)
    together = network(images, points, labels)
    assert together.shape == (3, 2, 96, 120)
    for i in range(3):
        for q in range(2):
            alone = network(images[i : i + 1], points[i : i + 1, q : q + 1], labels[i : i + 1, q : q + 1])
            close(together[i, q], alone[0, 0])
    assert (together[:, 0] - together[:, 1]).abs().max() > 0.1


@pytest.mark.parametrize("slots", [7, 40])
def test_every_point_matters_beyond_the_sixth(network, slots):
    embeddings, (points, labels) = network.encode_image(recipe_images(1)), spread_prompts(count=slots)
    expected = network.decode(embeddings, points, labels, (96, 120))[0]
    for place in (0, 6, slots - 1):
        moved = points.clone()
        moved[..., place, :] = torch.tensor([60.0, 2.0])
        assert (network.decode(embeddings, moved, labels, (96, 120))[0] - expected).abs().max() > 1e-3
        switched = labels.clone()
        switched[..., place] = 0
        assert (network.decode(embeddings, points, switched, (96, 120))[0] - expected).abs().max() > 1e-3


def test_the_order_of_forty_clicks_does_not_matter(corrected):
    embeddings, (points, _) = corrected.encode_image(recipe_images(1)), spread_prompts(count=40)
    labels, mask = (torch.arange(40) % 3 > 0).long().view(1, 1, 40), mask_prompts()
    logits, iou = corrected.decode_all(embeddings, points, labels, SIZE, mask)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert logits.isfinite().all()
    for found, expected in zip(
        corrected.decode_all(embeddings, points[:, :, order], labels[:, :, order], SIZE, mask), (logits, iou)
    ):
        close(found, expected, 1e-4)


@pytest.mark.parametrize("clicks", [2, 6, 40])
@pytest.mark.parametrize("labels", [(1, 1), (1, 0)], ids=["agreeing", "contradicting"])
def test_clicks_on_one_pixel_give_masks(corrected, clicks, labels):
    points = torch.tensor([50.0, 40.0]).expand(1, 1, clicks, 2)
    labels = torch.tensor(labels).repeat(clicks // 2).view(1, 1, clicks)
    logits, quality = corrected.decode_best(corrected.encode_image(recipe_images(1)), points, labels, SIZE)
    assert logits.shape == (1, 1, 1, 16, 16)
    assert logits.isfinite().all() and quality.isfinite().all()


def test_a_background_click_changes_the_masks_by_its_embedding_once_it_is_trained(network, corrected):
    embeddings, (points, _) = network.encode_image(recipe_images(1)), spread_prompts(count=2)
    background, nothing = torch.tensor([[[1, 0]]]), torch.tensor([[[1, 255]]])
    masks = [
        [each.decode_all(embeddings, points, labels, SIZE)[0] for labels in (background, nothing)]
        for each in (network, corrected)
    ]
    assert torch.equal(*masks[0])
    assert (masks[1][0] - masks[1][1]).abs().max() > 0.1


@pytest.mark.parametrize("decode", ["decode", "decode_all", "decode_best"])
def test_a_mask_prompt_changes_the_masks_once_it_is_trained(network, corrected, decode):
    embeddings, prompts = network.encode_image(recipe_images(1)), spread_prompts()
    for each, changes in ((network, False), (corrected, True)):
        without, with_one, with_another = (
            getattr(each, decode)(embeddings, *prompts, SIZE, mask)[0]
            for mask in (None, mask_prompts(), -mask_prompts())
        )
        assert torch.equal(with_one, with_another) != changes
        assert torch.equal(with_one, without) != changes
        if changes:
            assert min((with_one - with_another).abs().max(), (with_one - without).abs().max()) > 0.1


def test_no_mask_has_an_embedding_of_its_own_and_no_part_in_a_mask(network, corrected):
    embeddings, prompts = network.encode_image(recipe_images(1)), spread_prompts()
    moved = copy.deepcopy(corrected)
    moved.prompt_encoder.no_mask_embed.weight.mul_(-1)
    for mask, changes in ((None, True), (mask_prompts(), False)):
        found, expected = (each.decode_all(embeddings, *prompts, SIZE, mask)[0] for each in (moved, corrected))
        assert torch.equal(found, expected) != changes


def test_an_empty_mask_prompt_is_not_the_same_as_none(corrected):
    embeddings, prompts = corrected.encode_image(recipe_images(1)), spread_prompts()
    none, empty = (
        corrected.decode_all(embeddings, *prompts, SIZE, mask)[0]
        for mask in (None, torch.full((1, 1, 1, 16, 16), -32.0))
    )
    assert (none - empty).abs().max() > 0.1


@pytest.mark.parametrize("sign", [-1, 1])
def test_logits_of_a_mask_prompt_beyond_32_count_as_32(corrected, sign):
    embeddings, prompts, mask = corrected.encode_image(recipe_images(1)), spread_prompts(), mask_prompts()
    found = {}
    for value in (30.0, 32.0, 100.0, torch.inf):
        mask[..., :8] = sign * value
        found[value] = corrected.decode_all(embeddings, *prompts, SIZE, mask)[0]
    assert torch.equal(found[100.0], found[32.0]) and torch.equal(found[torch.inf], found[32.0])
    assert not torch.equal(found[30.0], found[32.0])


def test_a_mask_prompt_is_embedded_cell_by_cell_row_by_row(corrected):
    mask, changed = mask_prompts().flatten(0, 1), mask_prompts().flatten(0, 1)
    changed[0, 0, 4:8, 12:16] *= -1  # row 1, column 3 of 4 x 4 cells
    no_click = torch.full((1, 1, 2), -1.0), torch.full((1, 1), -1), SIZE
    dense, other = (corrected.prompt_encoder.embed_mask(each, *no_click) for each in (mask, changed))
    assert dense.shape == (1, 256, 4, 4)
    assert (dense != other).any(1)[0].nonzero().tolist() == [[1, 3]]


@pytest.mark.parametrize("point", [(11.0, 5.0), (75.0, 90.0), (0.0, 0.0), (119.0, 95.0)], ids=str)
@pytest.mark.parametrize(("label", "sign"), [(1, 1), (0, -1), (-1, 0), (2, 0), (3, 0), (4, 0)])
def test_a_click_is_drawn_on_the_mask_as_a_disc_where_it_was_placed(network, point, label, sign):
    encoder = network.prompt_encoder
    points = encoder.rescale(torch.tensor([[point]]), torch.tensor([[label]]), SIZE)
    drawn = encoder.draw_clicks(points, torch.tensor([[label]]), 16)
    assert drawn.shape == (1, 1, 16, 16)
    y, x = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(16) + 0.5, indexing="ij")
    place = (torch.tensor(point) * torch.tensor([64 / 120, 64 / 96]) + 0.5) / 4  # in cells of four pixels
    expected = sign * ((x - place[0]) ** 2 + (y - place[1]) ** 2 <= 1.5**2)
    assert torch.equal(drawn[0, 0], expected.to(drawn.dtype))
    assert sign == 0 or drawn.any()


def test_clicks_on_the_mask_are_sure_and_opposite_ones_on_one_pixel_cancel(corrected):
    encoder = corrected.prompt_encoder
    embed = encoder.embed_mask
    here, mask = torch.tensor([[[50.0, 40.0], [50.0, 40.0]]]), mask_prompts().flatten(0, 1)
    nothing, object_here, background_here, both = (
        embed(mask, here, torch.tensor([labels]), SIZE) for labels in ((-1, -1), (1, -1), (0, 0), (1, 0))
    )
    assert torch.equal(both, nothing)
    inside = encoder.draw_clicks(encoder.rescale(here, torch.tensor([[1, -1]]), SIZE), torch.tensor([[1, -1]]), 16) > 0
    for found, logit in ((object_here, 32.0), (background_here, -32.0)):
        filled = torch.where(inside, logit, mask)
        close(found, embed(filled, here, torch.tensor([[-1, -1]]), SIZE))
        assert not torch.equal(found, nothing)


@pytest.mark.parametrize("align", [False, True])
def test_a_click_shared_by_classes_is_a_foreground_click_that_is_not_drawn_on_the_mask(align):
    encoder = recipe_network("vitt", 64, corrections=True).prompt_encoder
    encoder.align_points = align
    points, size, mask = torch.tensor([[[11.0, 5.0]]]), (28, 40), mask_prompts(1, 1)[0]
    shared, own, padding = (torch.tensor([[label]]) for label in (4, 1, -1))
    assert torch.equal(encoder(points, shared, size), encoder(points, own, size))
    assert torch.equal(encoder.embed_mask(mask, points, shared, size), encoder.embed_mask(mask, points, padding, size))


def test_each_object_has_its_own_clicks_on_its_mask(corrected):
    points, masks = spread_prompts(1, 3, 2)[0][0], mask_prompts(1, 3)[0]
    labels = torch.tensor([[1, 0], [0, -1], [1, 1]])
    together = corrected.prompt_encoder.embed_mask(masks, points, labels, SIZE)
    for q in range(3):
        one = slice(q, q + 1)
        close(corrected.prompt_encoder.embed_mask(masks[one], points[one], labels[one], SIZE), together[one])


@pytest.mark.parametrize("clicks", [1, 9])
def test_batch_of_images_and_objects_with_mask_prompts_gives_what_each_gives_alone(corrected, clicks):
    embeddings, masks = corrected.encode_image(recipe_images(2)), mask_prompts(2, 3)
    points, _ = spread_prompts(2, 3, clicks)
    labels = (torch.arange(6 * clicks) % 4 > 0).long().view(2, 3, clicks)
    logits, iou = corrected.decode_all(embeddings, points, labels, SIZE, masks)
    best, quality = corrected.decode_best(embeddings, points, labels, SIZE, masks)
    for i in range(2):
        for q in range(3):
            one = (slice(i, i + 1), slice(q, q + 1))
            alone = embeddings[i : i + 1], points[one], labels[one], SIZE, masks[one]
            for found, expected in zip(corrected.decode_all(*alone), (logits[one], iou[one])):
                close(found, expected, 1e-4)
            for found, expected in zip(corrected.decode_best(*alone), (best[one], quality[one])):
                close(found, expected, 1e-4)


@pytest.mark.parametrize(
    "shape",
    [(2, 1, 1, 16, 16), (1, 2, 1, 16, 16), (2, 2, 16, 16), (2, 2, 3, 16, 16), (2, 2, 1, 64, 64), (2, 2, 1, 16, 15)],
    ids=str,
)
@pytest.mark.parametrize("decode", ["decode", "decode_all", "decode_best"])
def test_a_mask_prompt_of_another_shape_is_refused(network, decode, shape):
    embeddings = network.encode_image(recipe_images(2))
    with pytest.raises(ValueError, match=r"mask_prompt holds low-resolution logits \[2, 2, 1, 16, 16\], got"):
        getattr(network, decode)(embeddings, *spread_prompts(2, 2), SIZE, torch.zeros(shape))


def test_one_object_may_come_without_its_axis(network):
    images, (points, labels) = recipe_images(2), spread_prompts(2)
    found = network(images, points[:, 0], labels[:, 0])
    assert found.shape == (2, 1, 96, 120)
    assert torch.equal(found, network(images, points, labels))


def test_points_may_be_whole_numbers(network):
    points, labels = spread_prompts()
    assert torch.equal(network(recipe_images(1), points.long(), labels), network(recipe_images(1), points, labels))


def test_without_prompts_the_box_of_the_whole_image_stands_in(network):
    corners = torch.tensor([[[[0.0, 0.0], [119.0, 95.0]]]]).expand(2, 1, 2, 2)
    expected = network(recipe_images(2), corners, torch.tensor([[[2, 3]]]).expand(2, 1, 2))
    assert torch.equal(network(recipe_images(2)), expected)


@pytest.mark.parametrize(("multimask", "masks"), [(True, slice(1, 4)), (False, slice(0, 1))])
def test_training_returns_all_four_masks_and_iou_and_decode_a_choice_of_them(multimask, masks):
    network, images, prompts = (
        recipe_network("vitt", 64).train().requires_grad_(False),
        recipe_images(2),
        spread_prompts(2, 3),
    )
    logits, iou = network(images, *prompts)
    assert logits.shape == (2, 3, 4, 16, 16)
    assert iou.shape == (2, 3, 4)
    found_logits, found_iou = network.decode(network.encode_image(images), *prompts, (96, 120), multimask=multimask)
    assert torch.equal(found_logits, logits[:, :, masks])
    assert torch.equal(found_iou, iou[:, :, masks])


def test_evaluation_returns_each_objects_mask_of_the_best_predicted_iou(network):
    images, prompts = recipe_images(2), spread_prompts(2, 16, 1)
    logits, iou = network.decode_all(network.encode_image(images), *prompts, (96, 120))
    best = iou.argmax(dim=2)
    assert len(best.unique()) > 1  # else one fixed mask would do
    found = network(images, *prompts)
    for i in range(2):
        for q in range(16):
            close(found[i, q], network.upscale(logits[i, q, best[i, q]], (96, 120)))


@pytest.mark.parametrize("chosen", [0, 1, 2, 3])
def test_evaluation_chooses_among_all_four_masks(chosen):
    network, images, prompts = recipe_network("vitt", 64).requires_grad_(False), recipe_images(1), spread_prompts()
    embeddings = network.encode_image(images)
    logits, _ = network.decode_all(embeddings, *prompts, SIZE)
    network.mask_decoder.iou_prediction_head.fc.bias[chosen] += 100
    best, quality = network.decode_best(embeddings, *prompts, SIZE)
    close(best[:, :, 0], logits[:, :, chosen])
    close(quality, network.decode_all(embeddings, *prompts, SIZE)[1][:, :, chosen])
    assert quality > 50
    close(network(images, *prompts)[0, 0], network.upscale(logits[0, 0, chosen], SIZE))


def test_each_object_may_name_the_mask_that_answers_it(network):
    embeddings, prompts = network.encode_image(recipe_images(2)), spread_prompts(2, 2)
    logits, iou = network.decode_all(embeddings, *prompts, SIZE)
    index = torch.tensor([[3, 0], [1, 2]])
    found, quality = network.decode_best(embeddings, *prompts, SIZE, None, index)
    for i in range(2):
        for q in range(2):
            assert torch.equal(found[i, q, 0], logits[i, q, index[i, q]])
            assert quality[i, q] == iou[i, q, index[i, q]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "vitb"}, r"backbone is one of vitt, vits, got 'vitb'"),
        ({"backbone": ""}, "backbone is one of"),
        ({"image_size": 0}, "positive multiple of 16, got 0"),
        ({"image_size": -64}, "positive multiple of 16, got -64"),
        ({"image_size": 8}, "positive multiple of 16, got 8"),
        ({"image_size": 100}, "positive multiple of 16, got 100"),
        ({"image_size": 256.5}, "positive multiple of 16, got 256.5"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EfficientSAM(**arguments)


@pytest.mark.parametrize("shape", [(1, 3, 64, 80), (1, 3, 80, 64), (1, 3, 32, 32)])
def test_encoder_refuses_an_image_of_another_size(network, shape):
    with pytest.raises(ValueError, match="64 x 64"):
        network.image_encoder(torch.zeros(shape))


POINTS, POINT_LABELS = spread_prompts(2, 2)
IMAGES = recipe_images(2)


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param((IMAGES, POINTS), id="points without labels"),
        pytest.param((IMAGES, None, POINT_LABELS), id="labels without points"),
        pytest.param((IMAGES[:1], POINTS[:1], POINT_LABELS[:1, :1]), id="labels of one object for two"),
        pytest.param((IMAGES[:1], POINTS[:, :1], POINT_LABELS[:, :1]), id="prompts of two images for one"),
        pytest.param((IMAGES, POINTS.repeat(1, 1, 1, 2)[..., :3], POINT_LABELS), id="points of three numbers"),
        pytest.param(((IMAGES * 255).byte(), POINTS, POINT_LABELS), id="image of 0 to 255"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(network, inputs):
    with pytest.raises(ValueError):
        network(*inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_network_runs_in_another_precision_with_points_of_that_precision(dtype):
    network = recipe_network("vitt", 64).to(dtype)
    points, labels = spread_prompts()
    assert network(recipe_images(1).to(dtype), points.to(dtype), labels).dtype == dtype


@pytest.mark.parametrize("prompts", [(), spread_prompts()], ids=["no prompt", "float32 points"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_network_runs_in_another_precision_whatever_the_points(dtype, prompts):
    network = recipe_network("vitt", 64).to(dtype)
    assert network(recipe_images(1).to(dtype), *prompts).dtype == dtype


def test_training_works_after_a_pass_in_inference_mode():
    network = recipe_network("vitt", 64, adapters=True)
    with torch.inference_mode():
        network(recipe_images(1))
    logits, _ = network.train()(recipe_images(1))
    logits.sum().backward()
    assert network.image_encoder.blocks[0].attn.bottleneck.up.weight.grad.abs().sum() > 0


def test_network_built_in_inference_mode_runs():
    with torch.inference_mode():
        assert recipe_network("vitt", 64).requires_grad_(False)(recipe_images(1)).shape == (1, 1, 96, 120)


def adapted_and_decoder(network):
    return train_only(add_adapters(network), ["adapters", "mask_decoder"])


def decoder_only(network):
    return train_only(network, ["mask_decoder"])


@pytest.mark.parametrize(
    ("prepare", "trained"),
    [
        (lambda network: network, ("",)),
        (lambda network: train_only(network, list(ADDED_PARAMETERS)), tuple(ADDED_PARAMETERS)),
        (lambda network: add_adapters(network, ENCODER), (".bottleneck.",)),
        (lambda network: add_adapters(network, BOTH), (".bottleneck.",)),
        (adapted_and_decoder, (".bottleneck.", "mask_decoder.")),
        (decoder_only, ("mask_decoder.",)),
    ],
    ids=["all", "corrections", "adapters", "adapters, of the decoder too", "adapters and decoder", "decoder"],
)
def test_gradients_reach_what_is_trained_and_nothing_else(prepare, trained):
    network = prepare(recipe_network("vitt", 64)).train()
    points, _ = spread_prompts(2, 2, 4)
    points, labels = points[:, :, [0, 0, 1, 2, 3]], torch.tensor([0, 1, 2, 3, -1]).expand(2, 2, 5)  # one of each label
    embeddings = network.encode_image(recipe_images(2))
    for mask in (None, mask_prompts(2, 2)):  # the first round and the next
        logits, iou = network.decode_all(embeddings, points, labels, SIZE, mask)
        (logits.square().sum() + iou.square().sum()).backward(retain_graph=True)
    expected = {name for name, _ in network.named_parameters() if any(part in name for part in trained)}
    assert {name for name, p in network.named_parameters() if p.grad is not None} == expected
    waits = ".bottleneck.down.", *(f"mask_downscaling.{i}." for i in range(6))  # until the last layer has left zero
    unmoved = {name for name, p in network.named_parameters() if p.grad is not None and not p.grad.any()}
    assert unmoved == {name for name in expected if any(part in name for part in waits)}


@pytest.mark.parametrize("part", ADDED_PARAMETERS)
def test_every_added_part_learns_and_then_shows(part):
    network, generator = train_only(recipe_network("vitt", 64), part), torch.Generator().manual_seed(0)
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.01)
    points, _ = spread_prompts(count=2)
    embeddings, labels = network.encode_image(recipe_images(1)), torch.tensor([[[1, 0]]])
    mask = mask_prompts() if part == "mask_downscaling" else None
    wanted, losses = torch.randn(1, 1, 4, 16, 16, generator=generator), []
    for _ in range(3):  # the second step reaches the layers before the last
        logits, _ = network.decode_all(embeddings, points, labels, SIZE, mask)
        losses.append((logits - wanted).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if added_part(name) == part}


def test_first_weights_are_those_of_a_vision_transformer():
    torch.manual_seed(0)
    network = EfficientSAM("vitt", 64)
    assert network.image_encoder.pos_embed.std().item() == pytest.approx(0.02, rel=0.03)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1), name
            assert abs(module.weight.mean().item()) < 0.002, name
            assert not module.bias.any(), name
        elif "norm" in name or "neck.1" in name or "neck.3" in name:
            assert (module.weight == 1).all() and not module.bias.any(), name
        elif name in ("prompt_encoder.background_embeddings", "prompt_encoder.no_mask_embed"):
            assert not module.weight.any(), name
        elif isinstance(module, nn.Embedding):
            assert module.weight.std().item() == pytest.approx(1, rel=0.2), name
    assert network.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.std().item() == pytest.approx(1, rel=0.2)


def test_first_weights_follow_the_seed():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(EfficientSAM("vitt", 64).state_dict()["image_encoder.pos_embed"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("adapters", [False, True])
def test_a_copy_computes_the_same_and_stands_alone(adapters):
    network, images, prompts = (
        recipe_network("vitt", 64, adapters).requires_grad_(False),
        recipe_images(1),
        spread_prompts(),
    )
    expected = network(images, *prompts)
    twin = copy.deepcopy(network)
    assert torch.equal(twin(images, *prompts), expected)
    for parameter in twin.parameters():
        parameter.mul_(1.5)
    assert not torch.equal(twin(images, *prompts), expected)
    assert torch.equal(network(images, *prompts), expected)


KINDS = {"plain": {}, "corrected": {"corrections": True}}
KINDS["adapted"] = {"adapters": True, "decoder": True, "corrections": True}


@pytest.fixture(scope="module", params=KINDS)
def scripted(request):
    """A network, and itself through TorchScript and a file."""
    network = recipe_network("vitt", 64, **KINDS[request.param]).requires_grad_(False)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    return network, torch.jit.load(file)


@pytest.mark.parametrize(
    "prompts", [(), spread_prompts(2, 3), spread_prompts(2, 1, 9)], ids=["image only", "three objects", "9"]
)
def test_torchscript_gives_the_same_masks(scripted, prompts):
    network, script = scripted
    close(script(recipe_images(2), *prompts), network(recipe_images(2), *prompts))


def test_torchscript_keeps_the_costly_and_the_cheap_half_apart(scripted):
    network, script = scripted
    embeddings = script.encode_image(recipe_images(2))
    close(embeddings, network.encode_image(recipe_images(2)))
    for multimask in (True, False):
        for mask in (None, mask_prompts(2, 3)):
            arguments = *spread_prompts(2, 3), (96, 120), mask, multimask
            logits, iou = script.decode(embeddings, *arguments)
            expected_logits, expected_iou = network.decode(embeddings, *arguments)
            close(logits, expected_logits)
            close(iou, expected_iou)
    close(script.upscale(logits, (30, 50)), network.upscale(expected_logits, (30, 50)))


@pytest.mark.parametrize("index", [None, torch.tensor([[3, 0, 1], [2, 2, 1]])], ids=["best", "given"])
@pytest.mark.parametrize("mask", [None, mask_prompts(2, 3)], ids=["no mask", "mask"])
@pytest.mark.parametrize("clicks", [1, 40])
def test_torchscript_decodes_the_same_best_mask(scripted, clicks, mask, index):
    network, script = scripted
    points, _ = spread_prompts(2, 3, clicks)
    labels = (torch.arange(6 * clicks) % 4 > 0).long().view(2, 3, clicks)
    arguments = network.encode_image(recipe_images(2)), points, labels, SIZE, mask, index
    for found, expected in zip(script.decode_best(*arguments), network.decode_best(*arguments)):
        close(found, expected)


@pytest.mark.parametrize("size", [(28, 40), (28, 400), (200, 400)])
def test_aligned_points_lie_where_they_were_placed_and_others_where_upstream_has_them(size):
    """On a small image a click falls on the middle of its pixel and a box reaches the outer edges of its corners."""
    aligned, upstream = (EfficientSAM("vitt", 80, align_points=align).prompt_encoder for align in (True, False))
    points, labels = torch.tensor([[[3.0, 4.0], [9.0, 8.0], [5.0, 6.0], [7.0, 2.0], [-1.0, -1.0]]]), [2, 3, 1, 0, -1]
    moved = aligned.rescale(points, torch.tensor([labels]), size) - upstream.rescale(
        points, torch.tensor([labels]), size
    )
    for axis, side in enumerate((size[1], size[0])):
        rest = max(80 / side - 1, 0)  # of an image's pixel, in the network's
        expected = torch.tensor([0, rest, rest / 2, rest / 2, 0])
        torch.testing.assert_close(moved[0, :, axis], expected, atol=1e-4, rtol=0)


def test_a_whole_checkpoint_loads_as_its_tensors_do(network):
    """MONAI's export commands give the network all that the file holds."""
    twin = EfficientSAM("vitt", 64)
    twin.load_state_dict({"model": network.state_dict(), "settings": {"backbone": "vitt"}})
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in twin.state_dict().items())
