# SPDX-License-Identifier: Apache-2.0
"""Adapter files: small, of one base, refused by another, and several on one base that is loaded once."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from scripts.errors import InputError
from scripts.networks import (
    AdapterWeights,
    EfficientSAM,
    Settings,
    build_network,
    find_weights,
    load,
    load_to_train,
    put_adapter,
    train_only,
)
from scripts.networks.adapters.files import read_adapter, write_adapter
from scripts.networks.checkpoint_file import read_checkpoint
from tests.networks.recipe import recipe_images, recipe_state

PARTS = ["adapters", "mask_tokens", "iou_token", "iou_prediction_head", "corrections"]  # as configs/train.yaml trains


class Evaluator:
    """What is known of an evaluator."""

    class state:  # noqa: N801, as in Ignite
        metrics = {"dice/click_1": 0.75, "dice/box": float("nan")}


def make_base(folder, backbone="vitt", name="base.pth"):
    network = EfficientSAM(backbone, 64)
    network.load_state_dict(recipe_state(network, corrections=True))
    torch.save({"model": network.state_dict()}, folder / name)
    return folder / name


def make_adapter(base, name="adapter.safetensors", adapters=({"kind": "bottleneck"},), parts=PARTS, seed=0):
    """Train something on a base, and write it."""
    network = train_only(load_to_train(base, image_size=64, adapters=list(adapters), trained_on="cells"), parts)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    write_adapter(base.parent / name, AdapterWeights(network, network.settings, str(base), Evaluator).state_dict())
    return network, base.parent / name


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    base = make_base(folder)
    make_adapter(base)
    make_adapter(base, "lora.safetensors", [{"kind": "lora"}], ["adapters"], seed=1)
    make_adapter(base, "adalora.safetensors", [{"kind": "adalora", "last_blocks": 3}], ["adapters"], seed=2)
    yield folder
    for path in folder.iterdir():  # megabytes
        path.unlink()


def header(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("name", ["adapter", "lora", "adalora"])
def test_a_file_is_small_and_loads_as_it_was_trained_but_for_half_precision(files, name):
    path = files / f"{name}.safetensors"
    assert path.stat().st_size < 3_000_000
    network = load(path)
    tensors = load_file(path)
    assert tensors and all(value.dtype == torch.float16 for value in tensors.values())
    base = torch.load(files / "base.pth", weights_only=True)["model"]
    for key, value in network.state_dict().items():
        assert torch.equal(value, tensors[key].float() if key in tensors else base[key]), key


def test_the_header_says_of_what_and_how_it_was_trained(files):
    about = header(files / "adapter.safetensors")
    assert json.loads(about["base"])["name"] == "base.pth"
    settings = json.loads(about["settings"])
    assert settings["trained_on"] == "cells" and settings["model"] == "efficientsam_vitt"
    assert settings["adapters"][0]["kind"] == "bottleneck"
    assert json.loads(about["metrics"]) == {"dice/click_1": 0.75}
    assert about["holds"] == (
        "bottleneck adapters of image_encoder, bottleneck adapters of mask_decoder, mask_decoder, prompt_encoder"
    )
    assert header(files / "lora.safetensors")["holds"] == "lora adapters of image_encoder"


def test_numbers_that_half_precision_cannot_hold_stay_as_they_are(tmp_path):
    tensors = {"a": torch.tensor([1e6, 1.0]), "b": torch.tensor([0.1])}
    state = {"adapter": tensors, "base": {"name": "b.pth", "sha256": "0"}, "settings": {}, "metrics": {}}
    write_adapter(tmp_path / "a.safetensors", state)
    held = read_adapter(tmp_path / "a.safetensors")["adapter"]
    assert torch.equal(held["a"], tensors["a"]) and held["b"].dtype == torch.float16


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_file_cut_short_is_refused(files, tmp_path, share):
    content = (files / "lora.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut\.safetensors is not a readable safetensors file \(cut short"):
        load(path)


def test_a_file_that_was_changed_is_refused(files, tmp_path):
    content = bytearray((files / "lora.safetensors").read_bytes())
    content[-100] ^= 1
    path = tmp_path / "changed.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"changed\.safetensors was changed after it was saved: copy it again"):
        load(path)


def changed(files, tmp_path, change=lambda tensors: None, **about):
    """Write the adapter again, with other tensors or another header."""
    path = files / "lora.safetensors"
    held = read_adapter(path)
    change(held["adapter"])
    write_adapter(tmp_path / "other.safetensors", held)
    metadata = {**header(tmp_path / "other.safetensors"), **about}
    save_file(held["adapter"], tmp_path / "other.safetensors", {k: v for k, v in metadata.items() if v is not None})
    return tmp_path / "other.safetensors"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(files, tmp_path, value):
    def spoil(tensors):
        tensors[sorted(tensors)[3]][0, 0] = value

    path = changed(files, tmp_path, spoil)
    with pytest.raises(InputError, match=r"other\.safetensors is broken: .*lora_. holds NaN or infinity"):
        load(files / "base.pth", path)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": None}, "is no adapter of this bundle"),
        ({"format": "another 1"}, "is no adapter of this bundle"),
        ({"base": None}, "does not say what it was trained on"),
        ({"base": "{"}, "does not say what it was trained on"),
        ({"base": "7"}, "does not say what it was trained on"),
        ({"base": "[" * 100_000}, "does not say what it was trained on"),
        ({"settings": "[1]"}, "holds settings that are not by name"),
        ({"settings": '{"classes": "$__import__(\'os\').abort()"}'}, "classes is label ids by name"),
        ({"settings": '{"model": "$1"}'}, "model is one of"),
        ({"settings": '{"another": 1}'}, "holds settings that this version has not"),
    ],
    ids=str,
)
def test_a_header_that_is_wrong_is_refused(files, tmp_path, about, message):
    with pytest.raises(InputError, match=message):
        load(files / "base.pth", changed(files, tmp_path, **about))


def test_a_base_is_looked_for_by_its_name_alone(files, tmp_path):
    """A path in the header would have been opened, wherever it leads."""
    base = json.loads(header(files / "lora.safetensors")["base"])
    path = changed(files, tmp_path, base=json.dumps({**base, "name": f"{files}/../{files.name}/base.pth"}))
    assert find_weights("models", adapter=path) == str(tmp_path / "base.pth")
    with pytest.raises(InputError, match=rf"no weights at {tmp_path}/base\.pth"):
        load(path)


def test_an_adapter_is_put_on_the_base_that_is_given(files, tmp_path):
    expected = load(files / "adapter.safetensors").state_dict()
    (tmp_path / "alone.safetensors").write_bytes((files / "adapter.safetensors").read_bytes())
    found = load(files / "base.pth", tmp_path / "alone.safetensors").state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_an_adapter_is_no_base(files, tmp_path):
    """One that named itself was read again and again."""
    base = json.loads(header(files / "lora.safetensors")["base"])
    path = changed(files, tmp_path, base=json.dumps({**base, "name": "changed.safetensors"}))
    message = r"names .*\.safetensors as its base, which is an adapter too: give whole weights as ckpt_path"
    with pytest.raises(InputError, match=message):
        load(path.rename(tmp_path / "changed.safetensors"))
    with pytest.raises(InputError, match=message):
        load(files / "adapter.safetensors", files / "lora.safetensors")


def test_none_is_the_base_without_an_adapter(files):
    found = load(files / "base.pth", "none", image_size=64)
    assert found.settings.adapters is None
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in load(files / "base.pth").state_dict().items())


def test_another_base_another_network_and_whole_weights_are_refused(files, tmp_path):
    adapter = files / "lora.safetensors"
    other = torch.load(files / "base.pth", weights_only=True)
    other["model"]["image_encoder.neck.0.weight"][0, 0] += 1e-3
    torch.save(other, tmp_path / "other.pth")
    message = r"lora\.safetensors was trained on other weights than these: it needs base\.pth, unchanged"
    with pytest.raises(InputError, match=message):
        load(tmp_path / "other.pth", adapter)
    with pytest.raises(InputError, match=message):
        put_adapter(load(tmp_path / "other.pth"), adapter)
    large = make_base(tmp_path, "vits", "large.pth")
    with pytest.raises(InputError, match=r"was trained on efficientsam_vitt, and .*large\.pth is of efficientsam_vits"):
        load(large, adapter)
    with pytest.raises(InputError, match="was trained on efficientsam_vitt, and the base is of efficientsam_vits"):
        put_adapter(EfficientSAM("vits", 64), adapter)
    with pytest.raises(InputError, match=r"base\.pth holds whole weights and no adapter: give it as ckpt_path"):
        load(files / "base.pth", files / "base.pth")
    with pytest.raises(InputError, match=r"base\.pth holds whole weights and no adapter"):
        put_adapter(load(files / "base.pth"), files / "base.pth")


def test_tensors_that_the_network_has_not_are_refused(files, tmp_path):
    def rename(tensors):
        tensors["image_encoder.blocks.12.attn.qkv.lora_a"] = tensors.pop("image_encoder.blocks.1.attn.qkv.lora_a")

    with pytest.raises(InputError, match=r"does not fit the network: image_encoder\.blocks\.12\.attn\.qkv\.lora_a"):
        load(files / "base.pth", changed(files, tmp_path, rename))


def test_several_adapters_on_one_base_answer_as_each_does_alone(files):
    base = load(files / "base.pth", image_size=64).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    image = recipe_images(1)
    names = ["adapter", "lora", "adalora"]
    with torch.no_grad():
        alone = [load(files / f"{name}.safetensors").eval()(image) for name in names]
        networks = [put_adapter(base, files / f"{name}.safetensors") for name in names]
        plain = base(image)
        for index in (0, 1, 2, 1, 0):
            assert torch.equal(networks[index](image), alone[index])
        assert torch.equal(base(image), plain)
    assert not any(torch.equal(plain, each) for each in alone)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    for network, name in zip(networks, names):  # what was not trained lies in memory once
        trained = read_checkpoint(files / f"{name}.safetensors").state
        for key, value in network.state_dict().items():
            assert (value.data_ptr() == base.state_dict()[key].data_ptr()) if key not in trained else True, key


def test_training_goes_on_from_an_adapter(files):
    network = load_to_train(files / "lora.safetensors")
    assert network.settings.adapters[0]["kind"] == "lora"
    expected = load(files / "lora.safetensors").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_a_network_of_settings_alone_is_built_again(files):
    about = read_adapter(files / "adapter.safetensors")
    assert build_network(Settings(**about["settings"])).settings.state_dict() == about["settings"]
