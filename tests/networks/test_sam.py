# SPDX-License-Identifier: Apache-2.0
"""SAM is segment-anything's, under the same door, adapters and prompts as EfficientSAM."""

import importlib.util
import json
import os

import pytest
import torch

from scripts.errors import InputError
from scripts.networks import Settings, add_adapters, build_network, load, load_to_train, train_only
from scripts.networks.registry import MODELS
from scripts.networks.sam import SAM
from tests.networks import recipe
from tests.networks.recipe import recipe_network, sample
from tests.networks.sam_recipe import FIXTURE, our_outputs, package_outputs, recipe_sam, recipe_state, upstream_name

POINTS, LABELS = torch.tensor([[[[31.0, 20.0], [50.0, 12.0]]] * 2]), torch.tensor([[[1, 0], [2, 3]]])
IMAGE = torch.rand(1, 3, 40, 72, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", autouse=True)
def shipped(tmp_path_factory):
    """Write weights as segment-anything ships them, once."""
    path = tmp_path_factory.mktemp("shipped") / "weights.pth"
    torch.save({upstream_name(name): value for name, value in recipe_state().items()}, path)
    upstream_file.source = path
    yield
    path.unlink()


def upstream_file(path):
    """Give these weights another name."""
    os.link(upstream_file.source, path)
    return path


@pytest.mark.parametrize(
    "image_size", [256, pytest.param(512, marks=pytest.mark.slow), pytest.param(1024, marks=pytest.mark.slow)]
)
def test_outputs_are_those_of_the_package(image_size):
    recorded, found = json.loads(FIXTURE.read_text())[str(image_size)], our_outputs(image_size)
    assert set(found) == set(recorded)
    for name, values in found.items():
        torch.testing.assert_close(sample(values), torch.tensor(recorded[name]), atol=1e-4, rtol=0)


@pytest.mark.skipif(importlib.util.find_spec("segment_anything") is None, reason="needs segment-anything")
def test_outputs_are_the_packages_number_by_number():
    found = our_outputs(256)
    for name, values in package_outputs(256).items():
        torch.testing.assert_close(found[name].flatten(), values.flatten(), atol=1e-4, rtol=0)


def test_padding_of_prompts_changes_nothing():
    plain, padded = our_outputs(256), our_outputs(256, padding=3)
    for name, values in plain.items():
        torch.testing.assert_close(padded[name], values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_padded", [True, False])
@torch.no_grad()
def test_scripts_and_traces_give_the_same(is_padded):
    network = add_adapters(recipe_sam(64, is_padded=is_padded), [{"kind": "bottleneck"}, {"kind": "lora"}])
    assert torch.equal(torch.jit.script(network)(IMAGE, POINTS, LABELS), network(IMAGE, POINTS, LABELS))
    embeddings, size = network.encode_image(IMAGE), torch.tensor([40.0, 72.0])
    logits, iou = network.decode_all(embeddings, POINTS, LABELS, (40, 72))
    nothing = torch.zeros(1, 2, 1, 16, 16)
    traced, traced_iou = network.decode_traced(embeddings, POINTS, LABELS, size, nothing, torch.zeros(1))
    torch.testing.assert_close(traced, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(traced_iou, iou, atol=1e-5, rtol=0)
    low = logits[:, 0]
    torch.testing.assert_close(
        network.upscale_traced(low, size.long()), network.upscale(low, (40, 72)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize(("height", "width"), [(40, 72), (72, 40), (64, 64), (200, 130), (5, 64), (1, 1)])
def test_places_of_an_image_are_the_same_on_the_square_and_back(is_padded, height, width):
    network, room = SAM("vitb", 64, is_padded=is_padded), max(height, width) // 32
    image, y, x = torch.zeros(1, 1, height, width), height // 2, width // 2
    image[..., max(y - room, 0) : y + room + 1, max(x - room, 0) : x + room + 1] = 1
    square = network.resize(image)
    assert square.shape == (1, 1, 64, 64)
    rows, columns = (square[0, 0] > 0.5).nonzero(as_tuple=True)
    (placed,) = network.to_network(torch.tensor([[float(x), float(y)]]), torch.tensor([1]), (height, width))
    scale = 64 / torch.tensor([max(height, width)] * 2 if is_padded else [width, height])
    torch.testing.assert_close(
        placed + 0.5, (torch.tensor([x, y]) + 0.5) * scale, atol=max(float(scale.max()), 0.5), rtol=0
    )
    found = torch.stack([columns, rows], 1).float().mean(0)
    torch.testing.assert_close(found, placed, atol=1 + float(scale.max()) / 2, rtol=0)
    whole = torch.ones(1, 1, height, width)
    shown = network.shrink(whole)
    assert shown.shape == (1, 1, 16, 16)
    back = network.upscale(20 * shown - 10, (height, width))
    assert back.shape == whole.shape and float((back > 0).float().mean()) > 0.5 and back[..., y, x] > 0
    outside = (square == -1).any().item()
    assert outside == (is_padded and height != width)


def test_padding_is_black_after_normalisation_and_medsam_goes_from_0_to_1():
    padded = SAM("vitb", 64).preprocess(IMAGE)
    assert padded[..., 36:, :].eq(0).all() and padded[..., :35, :].ne(0).any()
    rescaled = SAM("vitb", 64, is_padded=False, is_rescaled=True).preprocess(0.2 + 0.1 * IMAGE)
    assert (float(rescaled.min()), float(rescaled.max())) == (0, 1)


@pytest.mark.parametrize(
    "adapters", [[{"kind": "bottleneck"}], [{"kind": "lora"}], [{"kind": "bottleneck"}, {"kind": "lora"}]], ids=str
)
def test_fresh_adapters_change_nothing(adapters):
    network = recipe_sam(64)
    with torch.no_grad():  # kernels for gradients round in another way
        before = network(IMAGE, POINTS, LABELS)
        assert torch.equal(add_adapters(network, adapters)(IMAGE, POINTS, LABELS), before)
    train_only(network, ["adapters", "mask_tokens", "corrections"])
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert "image_encoder" in trained and "prompt_encoder" not in trained  # corrections are SAM's own
    network.train()(IMAGE, POINTS, LABELS)[0].sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("file", "asked", "expected"),
    [
        ("sam_vit_b_01ec64.pth", {}, ("sam_vitb", "padded", False)),
        ("sam_vit_b_01ec64.pth", {"model": "medsam_vitb"}, ("medsam_vitb", "stretched", True)),
        ("medsam_vit_b.pth", {}, ("medsam_vitb", "stretched", True)),
        ("mine.pth", {"model": "medsam_vitb"}, ("medsam_vitb", "stretched", True)),
        ("mine.pth", {}, ("sam_vitb", "padded", False)),
    ],
)
def test_files_tell_their_network_and_its_geometry(tmp_path, file, asked, expected):
    network = load(upstream_file(tmp_path / file), image_size=64, **asked)
    assert (network.settings.model, network.settings.geometry, network.is_rescaled) == expected
    assert network.is_padded == (expected[1] == "padded")
    assert torch.equal(network.mask_decoder.iou_token.weight, recipe_sam(64).mask_decoder.iou_token.weight)


def test_training_stretches_and_what_it_saves_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    path = upstream_file(tmp_path / "sam_vit_b_01ec64.pth")
    network = load_to_train(path, model="sam_vitb", image_size=64, adapters=[{"kind": "bottleneck"}])
    assert "geometry is stretched from now on" in caplog.text and not network.is_padded
    saved = {"model": network.state_dict(), "settings": network.settings.state_dict()}
    torch.save(saved, tmp_path / "model.pt")
    again = load(tmp_path / "model.pt")
    assert again.settings == network.settings and not again.is_padded
    assert torch.equal(again.eval()(IMAGE, POINTS, LABELS), network.eval()(IMAGE, POINTS, LABELS))


def test_a_geometry_that_a_network_has_not_is_refused():
    assert Settings("efficientsam_vitt").geometry == "stretched"
    with pytest.raises(InputError, match="geometry of efficientsam_vitt is stretched, got padded"):
        Settings("efficientsam_vitt", geometry="padded")
    with pytest.raises(InputError, match="geometry is stretched or padded, got 'round'"):
        Settings("sam_vitb", geometry="round")
    assert build_network(Settings("medsam_vitb", 64, geometry="padded")).is_padded


def efficient_sam_file(path):
    torch.save(recipe.recipe_state(recipe_network("vitt", 64)), path)


def vit_l_file(path):
    state = dict(recipe_state())
    state["image_encoder.pos_embed"] = torch.zeros(1, 64, 64, 1024)
    torch.save(state, path)


def cut_file(path):
    path.write_bytes(upstream_file.source.read_bytes()[: 10**6])


def nan_file(path):
    state = dict(recipe_state())
    state["mask_decoder.iou_token.weight"] = torch.full((1, 256), float("nan"))
    torch.save(state, path)


@pytest.mark.parametrize(
    ("write", "model", "sentence"),
    [
        (efficient_sam_file, "sam_vitb", "is of a network with model efficientsam_vitt, but model sam_vitb is asked"),
        (
            upstream_file,
            "efficientsam_vitt",
            "is of a network with model sam_vitb, but model efficientsam_vitt is asked",
        ),
        (vit_l_file, "sam_vitb", "is of no network that is known: efficientsam_vitt, efficientsam_vits, sam_vitb"),
        (cut_file, "sam_vitb", "is not a readable PyTorch checkpoint"),
        (nan_file, "sam_vitb", "is broken: mask_decoder.iou_token.weight holds NaN"),
    ],
    ids=["EfficientSAM", "into EfficientSAM", "ViT-L", "cut", "NaN"],
)
def test_files_that_do_not_fit_are_refused_in_a_sentence(tmp_path, write, model, sentence):
    write(tmp_path / "weights.pth")
    with pytest.raises(InputError, match=sentence) as refused:
        load(tmp_path / "weights.pth", model=model, image_size=64)
    assert "\n" not in str(refused.value)


def test_it_is_listed_beside_the_others():
    assert {"sam_vitb", "medsam_vitb"} < set(MODELS)
    with pytest.raises(InputError, match="backbone is one of vitb"):
        SAM("vitl")
    with pytest.raises(InputError, match="multiple of 16"):
        SAM("vitb", 100)


def test_a_checkpoint_of_medical_sam_adapter_loads_by_its_own_names(tmp_path):
    network = add_adapters(recipe_sam(64), [{"kind": "bottleneck", "targets": ["image_encoder.*"]}])
    for name, parameter in network.named_parameters():
        if ".bottleneck." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    names = {".attn.bottleneck.": ".Space_Adapter.", ".mlp.bottleneck.": ".MLP_Adapter."}
    state = {}
    for name, value in network.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(f"{ours}down", f"{theirs}D_fc1").replace(f"{ours}up", f"{theirs}D_fc2")
        state[upstream_name(name)] = value
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "best_checkpoint.pth")
    loaded = load(tmp_path / "best_checkpoint.pth", image_size=64)
    assert loaded.settings.model == "sam_vitb" and loaded.settings.adapters[0]["targets"] == ["image_encoder.*"]
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())
