# SPDX-License-Identifier: Apache-2.0
"""A checkpoint describes its network: what loads it builds the network from it, and a contradiction is refused."""

import logging
from dataclasses import replace

import pytest
import torch

from scripts.errors import InputError
from scripts.networks import (
    AdapterWeights,
    EfficientSAM,
    Settings,
    add_adapters,
    build_network,
    load,
    load_to_train,
    load_weights,
    read_settings,
    train_only,
)
from scripts.networks.settings import TYPES
from tests.networks.recipe import recipe_images, recipe_state, upstream_state


def saved(settings):
    """Give what a run saves, with the recipe's weights."""
    network = build_network(settings)
    network.load_state_dict(recipe_state(network, corrections=True))
    return network, {"model": network.state_dict(), "settings": settings.state_dict()}


WIDE = [{"kind": "bottleneck", "targets": ["*"], "ratio": 0.5, "scale": 2.0, "last_blocks": None}]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(image_size=64),
        Settings("vits", image_size=64, align_points=False),
        Settings(image_size=80, adapters=WIDE, class_masks=True, classes={"disc": [1, 2], "cup": [2]}),
        Settings(image_size=64, adapters=[{"kind": "bottleneck"}], intensity_range=[-175, 250], mask_feedback=False),
    ],
    ids=["plain", "S", "wide adapters, classes", "window"],
)
def test_whatever_loads_a_checkpoint_builds_its_network(save, settings):
    network, checkpoint = saved(settings)
    path = save(checkpoint)
    assert read_settings(path) == settings
    again = load_weights(build_network(read_settings(path)), path).eval()
    assert torch.equal(again(recipe_images(1)), network.eval()(recipe_images(1)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_size": 128}, "with image_size 64, but image_size 128 is asked for"),
        ({"model": "vits"}, "with model efficientsam_vitt, but model efficientsam_vits is asked for"),
        ({"adapters": [{"kind": "bottleneck", "ratio": 0.25}]}, "with adapters .*0.5.*, but adapters .*0.25"),
        ({"align_points": False}, "with align_points True, but align_points False is asked for"),
        ({"class_masks": True}, "with class_masks False, but class_masks True is asked for"),
    ],
    ids=str,
)
def test_a_setting_that_contradicts_the_file_is_refused_with_both_values(save, given, message):
    path = save(saved(Settings(image_size=64, adapters=WIDE))[1])
    with pytest.raises(InputError, match=message) as caught:
        read_settings(path, **given)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_settings_that_agree_or_say_nothing_are_accepted(save):
    settings = Settings(image_size=64, adapters=WIDE)
    path = save(saved(settings)[1])
    assert read_settings(path, image_size=64, model=None, adapters=[{"ratio": 0.5}]) == settings


def test_another_data_set_may_have_other_classes_and_another_window(save, caplog):
    path = save(saved(Settings(image_size=64, classes={"a": [1]}))[1])
    with caplog.at_level(logging.WARNING):
        settings = read_settings(path, classes={"b": [2]}, intensity_range=[0, 9])
    assert (settings.classes, settings.intensity_range) == ({"b": [2]}, [0, 9])
    assert len(caplog.messages) == 1 and "was trained with classes {'a': [1]}" in caplog.messages[0]


@pytest.mark.parametrize("backbone", ["vitt", "vits"])
def test_upstreams_checkpoint_tells_its_backbone_and_takes_the_rest_as_given(save, backbone):
    path = save({"model": upstream_state(EfficientSAM(backbone, 64))})
    assert read_settings(path, image_size=512) == Settings(backbone, image_size=512)
    assert read_settings(path) == Settings(backbone, image_size=256)
    with pytest.raises(InputError, match="but model"):
        read_settings(path, model="vits" if backbone == "vitt" else "vitt")


def test_an_older_checkpoint_tells_its_size_and_its_adapters(save):
    state = add_adapters(EfficientSAM("vitt", 64), [{"ratio": 0.5}]).state_dict()
    state._metadata[""]["image_size"] = 64
    settings = read_settings(save(state))
    assert settings.image_size == 64
    assert settings.adapters == [
        {"kind": "bottleneck", "targets": ["*"], "ratio": 0.5, "scale": 0.5, "last_blocks": None}
    ]


@pytest.mark.parametrize("backbone", ["vitt", "vits"])
def test_a_checkpoint_of_version_0_2_names_its_network_by_its_backbone(save, backbone):
    _, checkpoint = saved(Settings(backbone, image_size=64, adapters=WIDE))
    old = {name: value for name, value in checkpoint["settings"].items() if name not in ("crop", "object_diameter")}
    old["backbone"] = old.pop("model").removeprefix("efficientsam_")
    settings = load(save({**checkpoint, "settings": old})).settings
    assert settings == Settings(backbone, image_size=64, adapters=WIDE)
    settings.load_state_dict(old)  # as a last.pth of that version is resumed


def test_without_weights_settings_are_as_given_and_training_can_begin():
    network = load_to_train("none", image_size=64, crop={"below": None})
    assert network.settings == Settings(image_size=64)
    for answer in (load, read_settings, lambda path: load_weights(network, path)):
        with pytest.raises(InputError, match="would answer by random numbers"):
            answer("none")


FINE_TUNE = Settings(
    image_size=64,
    align_points=False,
    adapters=WIDE,
    class_masks=True,
    mask_feedback=False,
    classes={"disc": [1, 2], "cup": [2]},
    intensity_range=[-175, 250],
    crop={"below": 32},
    trained_on="abdomen",
    object_diameter=17.5,
)


def test_training_goes_on_with_the_settings_of_what_it_starts_from_and_says_them(save, caplog):
    """A window, classes and a scale of adapters were dropped without a word, and the result was served."""
    network, checkpoint = saved(FINE_TUNE)
    path = save(checkpoint)
    nothing = dict.fromkeys(("model", "image_size", "classes", "class_masks", "intensity_range", "mask_feedback"))
    asked = {
        "adapters": [{"kind": "bottleneck", "targets": ["*"], "ratio": None, "scale": None}],
        "crop": {"below": None},
    }
    with caplog.at_level(logging.INFO, "scripts"):
        again = load_to_train(path, **nothing, **asked, trained_on="here")
    assert again.settings == replace(FINE_TUNE, trained_on="here")
    assert torch.equal(again.eval()(recipe_images(1)), network.eval()(recipe_images(1)))
    told = [message for message in caplog.messages if f"as of {path}" in message]
    names = {
        "image_size",
        "align_points",
        "adapters",
        "classes",
        "class_masks",
        "intensity_range",
        "mask_feedback",
        "crop",
    }
    assert {message.split()[0] for message in told} == names


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ({"image_size": 80}, {"image_size": 80}),
        ({"intensity_range": "none"}, {"intensity_range": None}),
        ({"classes": {"lens": [3]}, "class_masks": False}, {"classes": {"lens": [3]}, "class_masks": False}),
        ({"adapters": [{"scale": 0.5}]}, {"adapters": [{**WIDE[0], "scale": 0.5}]}),
        ({"crop": {"below": 0}}, {"crop": {**FINE_TUNE.crop, "below": 0}}),
    ],
    ids=str,
)
def test_training_takes_what_is_asked_for_instead_and_says_so(save, caplog, asked, changed):
    path = save(saved(FINE_TUNE)[1])
    with caplog.at_level(logging.INFO, "scripts"):
        network = load_to_train(path, **asked)
    assert network.settings == replace(FINE_TUNE, **changed)
    told = [message.split()[0] for message in caplog.messages if "from now on" in message]
    assert set(told) == set(changed)


def test_adapters_are_added_to_weights_that_have_none(save):
    path = save(saved(Settings(image_size=64))[1])
    network = load_to_train(path, adapters=[{"kind": "bottleneck", "ratio": None}])
    assert network.settings.adapters == [
        {"kind": "bottleneck", "targets": ["*"], "ratio": 0.25, "scale": 0.5, "last_blocks": None}
    ]
    plain = load(path)
    assert torch.equal(network.eval()(recipe_images(1)), plain.eval()(recipe_images(1)))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"model": "vits"}, "holds efficientsam_vitt but"),
        ({"adapters": "none"}, "holds bottleneck adapters of image_encoder but the network has none"),
        ({"adapters": [{"ratio": 0.25}]}, "does not fit the network"),
    ],
    ids=str,
)
def test_training_cannot_make_another_network_of_weights(save, asked, says):
    path = save(saved(FINE_TUNE)[1])
    with pytest.raises(InputError, match=says):
        load_to_train(path, **asked)


def test_a_run_with_other_settings_is_not_resumed():
    settings = Settings(image_size=64)
    settings.load_state_dict(Settings(image_size=64).state_dict())
    with pytest.raises(InputError, match="image_size 128, but now it is 64"):
        settings.load_state_dict(Settings(image_size=128).state_dict())


def trained_adapter(save):
    """Train something on a base, and save the base and what was trained."""
    settings = Settings(image_size=64, adapters=[{"kind": "bottleneck"}])
    plain = EfficientSAM("vitt", 64)
    plain.load_state_dict(recipe_state(plain, corrections=True))
    base = save({"model": plain.state_dict()}, "base.pth")
    network = train_only(load_weights(build_network(settings), base), ["adapters", "iou_token"])
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    return network, save(AdapterWeights(network, settings, str(base)).state_dict(), "adapter.pth"), base


def test_an_adapter_file_is_small_and_is_put_on_its_base(save):
    network, path, base = trained_adapter(save)
    assert path.stat().st_size < 0.1 * base.stat().st_size
    again = load_weights(build_network(read_settings(path)), path)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in again.state_dict().items())


def test_an_adapter_is_refused_by_another_base(save):
    _, path, base = trained_adapter(save)
    checkpoint = torch.load(base, weights_only=True)
    checkpoint["model"]["image_encoder.neck.0.weight"][0, 0] += 1e-3
    save(checkpoint, "base.pth")
    with pytest.raises(InputError, match=r"was trained on other weights than these: it needs base\.pth, unchanged"):
        load_weights(build_network(read_settings(path)), path)


def test_an_adapter_without_its_base_names_what_is_missing(save):
    _, path, base = trained_adapter(save)
    base.unlink()
    with pytest.raises(InputError, match=r"no weights at .*base\.pth"):
        load_weights(build_network(read_settings(path)), path)


HOSTILE = [
    "$__import__('os').abort()",
    "@image_size",
    "%a.yaml",
    {"_target_": "os.abort"},
    ["$1"],
    7.5,
    -1,
    b"x",
    10**30,
]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("name", [*Settings.__dataclass_fields__, "another"])
def test_a_checkpoint_with_a_setting_of_another_type_is_refused_by_name(tmp_path, name, value):
    _, checkpoint = saved(Settings(image_size=64))
    checkpoint["settings"][name] = value
    torch.save(checkpoint, tmp_path / "model.pt")
    if name in TYPES and TYPES[name][0](value):  # a name or a number that nothing reads as more
        assert getattr(read_settings(tmp_path / "model.pt"), name) == value
        return
    with pytest.raises(InputError, match=rf"model\.pt.*{'adapters' if name == 'adapters' else name}"):
        read_settings(tmp_path / "model.pt")


@pytest.mark.parametrize("settings", ["$1", ["image_size"], 7, {3: 4}])
def test_settings_that_are_none_are_refused(tmp_path, settings):
    _, checkpoint = saved(Settings(image_size=64))
    torch.save({**checkpoint, "settings": settings}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt holds settings that are not by name"):
        read_settings(tmp_path / "model.pt")


@pytest.mark.parametrize("first", [5_000, 400_000])
def test_a_file_whose_bytes_were_changed_is_refused(tmp_path, first):
    network, checkpoint = saved(Settings(image_size=64))
    torch.save(checkpoint, tmp_path / "model.pt")
    load_weights(build_network(Settings(image_size=64)), tmp_path / "model.pt")
    content = bytearray((tmp_path / "model.pt").read_bytes())
    content[first : first + 2000] = bytes(255 - byte for byte in content[first : first + 2000])
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match="was changed after it was saved"):
        load_weights(network, tmp_path / "model.pt")
