# SPDX-License-Identifier: Apache-2.0
"""What EfficientSAM takes and gives: sizes, prompts, modes, errors, gradients, first weights, TorchScript."""

import copy
import io

import pytest
import torch
import torch.nn as nn

from scripts.networks import EfficientSAM, add_adapters, train_only
from tests.networks.recipe import recipe_images, recipe_network

ENCODER_PARAMETERS = {"vitt": 6_163_840, "vits": 22_353_664}
TOTAL_PARAMETERS = {"vitt": 10_223_204, "vits": 26_413_028}


@pytest.fixture(scope="module")
def network():
    """A Ti network for 64 pixels; tests leave it as it is."""
    return recipe_network("vitt", 64).requires_grad_(False)


def spread_prompts(batch=1, queries=1, count=3):
    """Give foreground points in many places of an image of 96 x 120 pixels, all different."""
    place = torch.arange(batch * queries * count, dtype=torch.float32)
    points = torch.stack([(37 * place + 11) % 120, (29 * place + 5) % 96], dim=-1)
    return points.reshape(batch, queries, count, 2), torch.ones(batch, queries, count, dtype=torch.long)


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("backbone", ["vitt", "vits"])
def test_parameters_and_state_dict_are_upstreams(backbone):
    network = EfficientSAM(backbone, image_size=64)
    assert len(network.state_dict()) == 278
    assert "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix" in network.state_dict()
    assert count(network.image_encoder) == ENCODER_PARAMETERS[backbone]
    assert count(network.prompt_encoder) == 1_024
    assert count(network.mask_decoder) == 4_058_340
    assert count(network) == TOTAL_PARAMETERS[backbone]


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
    logits, iou = network.decode(network.encode_image(images), *prompts, (96, 120))
    best = iou.argmax(dim=2)
    assert len(best.unique()) > 1  # else one fixed mask would do
    found = network(images, *prompts)
    for i in range(2):
        for q in range(16):
            close(found[i, q], network.upscale(logits[i, q, best[i, q]], (96, 120)))


@pytest.mark.parametrize(("boosted", "chosen"), [((0,), None), ((0, 1), 1), ((0, 2), 2), ((0, 3), 3)])
def test_evaluation_chooses_among_the_three_masks_and_never_the_first(boosted, chosen):
    network, images, prompts = recipe_network("vitt", 64).requires_grad_(False), recipe_images(1), spread_prompts()
    logits, iou = network.decode_all(network.encode_image(images), *prompts, (96, 120))
    for mask in boosted:
        network.mask_decoder.iou_prediction_head.fc.bias[mask] += 100 - mask  # mask 0 promises the most
    expected = chosen or 1 + int(iou[0, 0, 1:].argmax())
    close(network(images, *prompts)[0, 0], network.upscale(logits[0, 0, expected], (96, 120)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "vitb"}, r"backbone is one of \['vits', 'vitt'\], got 'vitb'"),
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
    assert network.image_encoder.blocks[0].space_adapter.up.weight.grad.abs().sum() > 0


def test_network_built_in_inference_mode_runs():
    with torch.inference_mode():
        assert recipe_network("vitt", 64).requires_grad_(False)(recipe_images(1)).shape == (1, 1, 96, 120)


def adapted_and_decoder(network):
    return add_adapters(network, train=["mask_decoder"])


def decoder_only(network):
    return train_only(network, ["mask_decoder"])


@pytest.mark.parametrize(
    ("prepare", "trained"),
    [
        (lambda network: network, ("",)),
        (add_adapters, ("_adapter.",)),
        (adapted_and_decoder, ("_adapter.", "mask_decoder.")),
        (decoder_only, ("mask_decoder.",)),
    ],
    ids=["all", "adapters", "adapters and decoder", "decoder"],
)
def test_gradients_reach_what_is_trained_and_nothing_else(prepare, trained):
    network = prepare(recipe_network("vitt", 64)).train()
    points, _ = spread_prompts(2, 2, 4)
    logits, iou = network(recipe_images(2), points, torch.tensor([1, 2, 3, -1]).expand(2, 2, 4))  # one of each label
    (logits.square().sum() + iou.square().sum()).backward()
    expected = {name for name, _ in network.named_parameters() if any(part in name for part in trained)}
    assert {name for name, p in network.named_parameters() if p.grad is not None} == expected
    waits = "_adapter.down."  # takes gradients once the last layer has left zero
    unmoved = {name for name, p in network.named_parameters() if p.grad is not None and not p.grad.any()}
    assert unmoved == {name for name in expected if waits in name}


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


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "adapted"])
def scripted(request):
    """A network, and itself through TorchScript and a file."""
    network = recipe_network("vitt", 64, adapters=request.param).requires_grad_(False)
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
        logits, iou = script.decode(embeddings, *spread_prompts(2, 3), (96, 120), multimask)
        expected_logits, expected_iou = network.decode(embeddings, *spread_prompts(2, 3), (96, 120), multimask)
        close(logits, expected_logits)
        close(iou, expected_iou)
    close(script.upscale(logits, (30, 50)), network.upscale(expected_logits, (30, 50)))
