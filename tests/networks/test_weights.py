# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of every form load exactly, and one that does not fit changes nothing and says so in one line."""

import collections
import logging
import zipfile

import numpy as np
import pytest
import torch

from scripts.errors import InputError
from scripts.networks import EfficientSAM, add_adapters, find_weights, load_weights
from tests.networks.recipe import CORRECTIONS, recipe_network, recipe_state, upstream_state

MSA_NAMES = {  # names here -> names of Medical-SAM-Adapter
    ".mlp.fc1.": ".mlp.lin1.",
    ".mlp.fc2.": ".mlp.lin2.",
    ".attn.bottleneck.down.": ".Space_Adapter.D_fc1.",
    ".attn.bottleneck.up.": ".Space_Adapter.D_fc2.",
    ".mlp.bottleneck.down.": ".MLP_Adapter.D_fc1.",
    ".mlp.bottleneck.up.": ".MLP_Adapter.D_fc2.",
}
POSITIONS = "image_encoder.pos_embed"
ADAPTER = "image_encoder.blocks.5.attn.bottleneck.up.weight"
DECODER_ADAPTER = "mask_decoder.transformer.layers.1.cross_attn_image_to_token.bottleneck.up.weight"
PART = "background clicks and mask feedback"
NO_CORRECTIONS = f"12 tensors of {PART} are not in it and start at zero"


def build(backbone="vitt", adapters=False, ratio=0.25, decoder=False):
    network = EfficientSAM(backbone, 64)
    targets = ["*"] if decoder else ["image_encoder.*"]
    return add_adapters(network, [{"ratio": ratio, "targets": targets}]) if adapters else network


@pytest.fixture(scope="module")
def states():
    """The recipe's weights of each kind of network; tests copy what they change."""
    kinds = {
        "vitt": build(),
        "vits": build("vits"),
        "adapted": build(adapters=True),
        "wide": build(adapters=True, ratio=0.5),
        "decoder": build(adapters=True, decoder=True),
    }
    states = {kind: recipe_state(network, corrections=True) for kind, network in kinds.items()}
    return {**states, "upstream": upstream_state(kinds["vitt"])}


def in_msa_form(state, image_size=64):
    """Rename as Medical-SAM-Adapter does, with its unused tables of zeros and depth adapters."""
    renamed = {}
    for name, value in state.items():
        for ours, theirs in MSA_NAMES.items():
            name = name.replace(ours, theirs)
        renamed[name] = value
    for i in range(12):
        block = f"image_encoder.blocks.{i}"
        for table in ("rel_h", "rel_w"):
            renamed[f"{block}.attn.{table}"] = torch.zeros(image_size // 8 - 1, 64)
        for layer, shape in (("D_fc1", (48, 192)), ("D_fc2", (192, 48))):
            renamed[f"{block}.Depth_Adapter.{layer}.weight"] = torch.ones(shape)
            renamed[f"{block}.Depth_Adapter.{layer}.bias"] = torch.ones(shape[0])
    return renamed


def equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: {"model": state}, id="upstream"),
        pytest.param(lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 3}, id="this bundle"),
        pytest.param(lambda state: {"state_dict": state, "epoch": 3, "model": "efficient_sam"}, id="state_dict"),
        pytest.param(lambda state: state, id="raw"),
        pytest.param(lambda state: collections.OrderedDict(state), id="ordered"),
        pytest.param(lambda state: {f"module.{name}": value for name, value in state.items()}, id="module"),
    ],
)
@pytest.mark.parametrize("kind", ["vitt", "adapted", "decoder"])
def test_checkpoint_loads_whole_from_every_form(states, save, wrap, kind):
    network = build(adapters=kind != "vitt", decoder=kind == "decoder")
    assert load_weights(network, save(wrap(states[kind]))) is network
    equal(network.state_dict(), states[kind])


def test_checkpoint_of_s_loads_from_the_zip_that_upstream_ships(states, save, tmp_path):
    inner = save({"model": states["vits"]}, "efficient_sam_vits.pt")
    path = tmp_path / "efficient_sam_vits.pt.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, "efficient_sam_vits.pt")
        archive.writestr("__MACOSX/._efficient_sam_vits.pt", b"made by a Mac")
    network = load_weights(build("vits"), str(path))
    path.unlink()
    equal(network.state_dict(), states["vits"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_to_the_networks_own(states, save, dtype):
    half = {name: value.to(dtype) for name, value in states["vitt"].items()}
    network = load_weights(build(), save({"model": half}))
    equal(network.state_dict(), {name: value.float() for name, value in half.items()})


def test_checkpoint_of_medical_sam_adapter_loads_under_our_names_and_says_what_was_left_out(states, save, caplog):
    theirs = {name: value for name, value in states["adapted"].items() if not CORRECTIONS.search(name)}
    path, network = save({"state_dict": in_msa_form(theirs), "epoch": 3}), build(adapters=True)
    fresh = {name: value.clone() for name, value in network.state_dict().items() if CORRECTIONS.search(name)}
    with caplog.at_level(logging.INFO, logger="scripts.networks"):
        load_weights(network, path)
    equal(network.state_dict(), {**theirs, **fresh})
    assert NO_CORRECTIONS in caplog.text
    assert "left out 24 relative-position tables, all zero" in caplog.text
    assert "left out 48 depth-adapter tensors" in caplog.text


def test_plain_checkpoint_leaves_fresh_adapters_and_says_so(states, save, caplog):
    network = build(adapters=True)
    fresh = {name: value.clone() for name, value in network.state_dict().items() if ".bottleneck." in name}
    with caplog.at_level(logging.INFO, logger="scripts.networks"):
        load_weights(network, save({"model": states["vitt"]}))
    equal(network.state_dict(), {**states["vitt"], **fresh})
    assert "96 tensors of bottleneck adapters of image_encoder are not in it and start at zero" in caplog.text
    assert PART not in caplog.text


def test_checkpoint_without_adapters_of_the_decoder_leaves_fresh_ones_and_says_so(states, save, caplog):
    network = build(adapters=True, decoder=True)
    fresh = {name: value.clone() for name, value in network.state_dict().items() if name not in states["adapted"]}
    with caplog.at_level(logging.INFO, logger="scripts.networks"):
        load_weights(network, save({"model": states["adapted"]}))
    equal(network.state_dict(), {**states["adapted"], **fresh})
    assert "24 tensors of bottleneck adapters of mask_decoder are not in it and start at zero" in caplog.text
    assert "adapters of image_encoder" not in caplog.text


@pytest.mark.parametrize("adapters", [False, True], ids=["plain", "adapted"])
def test_upstreams_checkpoint_leaves_what_it_has_not_as_it_starts_and_says_so(states, save, caplog, adapters):
    path, network = save({"model": states["upstream"]}), build(adapters=adapters)
    fresh = {name: value.clone() for name, value in network.state_dict().items() if name not in states["upstream"]}
    with caplog.at_level(logging.INFO, logger="scripts.networks"):
        load_weights(network, path)
    assert len(fresh) == 12 + 96 * adapters
    equal(network.state_dict(), {**states["upstream"], **fresh})
    adapter_note = (
        "; 96 tensors of bottleneck adapters of image_encoder are not in it and start at zero" if adapters else ""
    )
    assert caplog.messages == [f"loaded 278 tensors from {path}{adapter_note}; {NO_CORRECTIONS}"]


def test_log_names_the_file_and_counts_its_tensors(states, save, caplog):
    path = save(states["vitt"])
    with caplog.at_level(logging.INFO, logger="scripts.networks"):
        load_weights(build(), path)
    assert caplog.messages == [f"loaded 290 tensors from {path}"]


@pytest.mark.parametrize(("saved_at", "warned"), [(64, False), (80, True), (None, False)])
def test_older_weights_saved_at_another_image_size_load_with_a_warning(states, save, caplog, saved_at, warned):
    """No tensor's shape tells the size; before it kept settings, this bundle noted it in the state dict's metadata."""
    state = collections.OrderedDict(states["vitt"])
    if saved_at is not None:
        state._metadata = {"": {"image_size": saved_at}}
    network = load_weights(build(), save({"model": state, "epoch": 3}))
    equal(network.state_dict(), states["vitt"])
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == warned
    if warned:
        assert "was saved at image_size 80 and is used at 64" in warnings[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(save, states, value):
    state = {name: tensor.clone() for name, tensor in states["vitt"].items()}
    state["image_encoder.pos_embed"][0, 3, 5] = value
    with pytest.raises(InputError, match="pos_embed holds NaN or infinity"):
        load_weights(build(), save({"model": state}))


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


def refused(network, path, message):
    """Load a checkpoint that must be refused: one line, naming the file, and the network as it was."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        load_weights(network, path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    equal(network.state_dict(), before)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "vitt",
            lambda s: without(s, "mask_decoder.iou_token.weight"),
            "1 tensors missing .mask_decoder.iou_token.weight.",
        ),
        ("vitt", lambda s: without(s, POSITIONS), "is of no network that is known"),
        ("vitt", lambda s: {**s, "head.weight": torch.zeros(1)}, "1 tensors unexpected .head.weight."),
        (
            "vitt",
            lambda s: {**s, POSITIONS: torch.zeros(1, 785, 192)},
            r"is \(1, 785, 192\) in the file and \(1, 197, 192\)",
        ),
        ("vitt", lambda s: {**s, POSITIONS: torch.zeros(197, 192)}, r"is \(197, 192\) in the file"),
        ("vitt", lambda s: {**s, POSITIONS: torch.zeros(1, 197, 768)}, "is of no network that is known"),
        ("adapted", lambda s: without(s, ADAPTER), f"1 tensors missing .{ADAPTER}."),
        ("adapted", lambda s: without(s, *[k for k in s if ".attn.bottleneck." in k]), "48 tensors missing"),
        ("adapted", lambda s: {k: v for k, v in in_msa_form(s).items() if "MLP_A" not in k}, "48 tensors missing"),
        (
            "adapted",
            lambda s: {**in_msa_form(s), "image_encoder.blocks.7.attn.rel_w": torch.eye(64)},
            "trained relative positions",
        ),
        ("decoder", lambda s: without(s, DECODER_ADAPTER), f"1 tensors missing .{DECODER_ADAPTER}."),
        ("vitt", lambda s: without(s, "prompt_encoder.no_mask_embed.weight"), "1 tensors missing .*no_mask_embed"),
        ("vitt", lambda s: {k: v for k, v in s.items() if "mask_downscaling" not in k}, "10 tensors missing"),
        ("vitt", lambda s: {k: v for k, v in s.items() if "downscaling.6." not in k}, "2 tensors missing"),
        (
            "vitt",
            lambda s: {**s, "prompt_encoder.mask_downscaling.3.weight": torch.zeros(8, 4, 2, 2)},
            r"mask_downscaling.3.weight is \(8, 4, 2, 2\) in the file and \(16, 4, 2, 2\)",
        ),
        (
            "upstream",
            lambda s: without(s, "mask_decoder.iou_token.weight"),
            "1 tensors missing .mask_decoder.iou_token",
        ),
    ],
    ids=[
        "missing",
        "another model",
        "unexpected",
        "other grid",
        "no batch axis",
        "another width",
        "one adapter tensor missing",
        "one kind of adapter missing",
        "one kind of adapter missing, MSA",
        "trained relative positions",
        "one tensor of the decoder's adapters missing",
        "no-mask embedding missing",
        "mask embedding missing",
        "last layer of the mask embedding missing",
        "other mask embedding",
        "missing, upstream's",
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(states, save, kind, change, message):
    network = build(adapters=kind in ("adapted", "decoder"), decoder=kind == "decoder")
    refused(network, save({"model": change(states[kind])}), message)


@pytest.mark.parametrize(
    ("backbone", "file", "message"),
    [
        ("vits", "vitt", "holds efficientsam_vitt but the network is efficientsam_vits"),
        ("vitt", "vits", "holds efficientsam_vits but the network is efficientsam_vitt"),
    ],
)
def test_another_backbone_is_refused_by_name(states, save, backbone, file, message):
    refused(build(backbone), save({"model": states[file]}), message)


def test_adapters_of_another_ratio_are_refused(states, save):
    message = r"down.weight is \(96, 192\) in the file and \(48, 192\) in the network"
    refused(build(adapters=True), save(states["wide"]), message)


def test_adapters_are_refused_by_a_network_without(states, save):
    refused(
        build(),
        save(states["adapted"]),
        "holds bottleneck adapters of image_encoder but the network has none: add them",
    )


def test_adapters_of_the_decoder_are_refused_by_a_network_without(states, save):
    message = "holds bottleneck adapters of mask_decoder but the network has none: add them"
    refused(build(adapters=True), save(states["decoder"]), message)


def test_adapters_of_the_decoder_do_not_stand_in_for_the_encoders(states, save):
    state = {name: value for name, value in states["decoder"].items() if name not in states["adapted"]}
    state = {**states["vitt"], **state}
    refused(build(), save(state), "holds bottleneck adapters of mask_decoder but the network has none")


@pytest.mark.parametrize("name", ["background_embeddings.weight", "no_mask_embed.weight", "mask_downscaling.6.bias"])
def test_checkpoint_without_an_added_part_is_refused_by_a_network_where_it_is_trained(states, save, name):
    network = build()
    with torch.no_grad():
        network.prompt_encoder.get_parameter(name)[..., 0] = 1e-4
    path = save({"model": states["upstream"]})
    refused(network, path, f"has no {PART} but the network's are trained: load it into a new network")


def test_an_added_part_whose_last_layers_are_zero_is_not_taken_for_trained(states, save):
    network = build()
    with torch.no_grad():
        network.prompt_encoder.get_parameter("mask_downscaling.0.weight").add_(1)
    load_weights(network, save({"model": states["upstream"]}))
    assert torch.equal(network.state_dict()[POSITIONS], states["upstream"][POSITIONS])


class NotATensor:
    """A class that a checkpoint may not bring along."""


@pytest.mark.parametrize(
    "checkpoint",
    [
        pytest.param([torch.zeros(3)], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({"model": {}}, id="empty model"),
        pytest.param({"epoch": 3, "best": 0.9}, id="no tensors"),
        pytest.param({POSITIONS: torch.zeros(1, 197, 192), "epoch": 3}, id="tensors and others"),
        pytest.param(torch.zeros(3), id="tensor"),
    ],
)
def test_checkpoint_without_tensors_by_name_is_refused(save, checkpoint):
    refused(build(), save(checkpoint), "holds no network weights: expected tensors by name")


def test_objects_of_other_classes_are_refused_unread(save):
    refused(build(), save({"model": {POSITIONS: NotATensor()}}), "not a readable PyTorch checkpoint")


def test_names_that_are_numbers_are_refused(save):
    refused(build(), save({0: torch.zeros(3)}), "holds no network weights")


def test_plain_checkpoint_is_refused_by_trained_adapters(states, save):
    network = recipe_network("vitt", 64, adapters=True)
    refused(network, save({"model": states["vitt"]}), "adapters")


def test_adapters_of_more_blocks_are_refused_as_unexpected(states, save):
    more = {**states["adapted"], ADAPTER.replace("blocks.5", "blocks.12"): torch.zeros(192, 48)}
    refused(build(adapters=True), save(more), "1 tensors unexpected")


@pytest.mark.parametrize("share", [0.5, 0.99, 0.0])
def test_file_cut_short_is_refused(states, save, share):
    path = save({"model": states["vitt"]})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(build(), path, "not a readable PyTorch checkpoint")


def test_zip_cut_short_is_refused(states, save, tmp_path):
    inner = save({"model": states["vitt"]}, "efficient_sam_vitt.pt")
    path = tmp_path / "weights.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, inner.name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(build(), path, "not a readable PyTorch checkpoint")
    path.unlink()


@pytest.mark.parametrize(
    "names", [[], ["readme.txt"], ["a.pt", "b.pt"]], ids=["empty", "no checkpoint", "two checkpoints"]
)
def test_zip_without_exactly_one_checkpoint_is_refused(tmp_path, names):
    path = tmp_path / "weights.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "nothing")
    refused(build(), path, "not a readable PyTorch checkpoint")


def test_text_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(build(), path, "not a readable PyTorch checkpoint")


@pytest.mark.parametrize("name", ["absent.pt", "folder/absent.pt", "."])
def test_missing_file_is_refused_and_the_download_named(tmp_path, name):
    refused(
        build(),
        tmp_path / name,
        "no weights at .*: give a file that exists, or fetch upstream's by python -m monai.bundle",
    )


@pytest.mark.parametrize(
    ("present", "backbone", "names", "found"),
    [
        (["best.pt", "efficient_sam_vitt.pth", "efficient_sam_vitt_base.pth"], "vitt", ["best.pt"], "best.pt"),
        (["b.pt", "a.pt"], "vitt", ("a.pt", "b.pt"), "a.pt"),
        (["best.pt", "efficient_sam_vitt.pth", "efficient_sam_vitt_base.pth"], "vitt", (), "efficient_sam_vitt.pth"),
        (["efficient_sam_vitt_base.pth"], "vitt", ["best.pt"], "efficient_sam_vitt_base.pth"),
        (["efficient_sam_vitt.pth", "efficient_sam_vits.pth"], "vits", (), "efficient_sam_vits.pth"),
        (["efficient_sam_vitt.pth"], "vits", (), None),
        ([], "vitt", ["best.pt"], None),
    ],
)
def test_best_weights_present_are_found(tmp_path, present, backbone, names, found):
    for name in present:
        (tmp_path / name).touch()
    if found is None:
        with pytest.raises(InputError, match=f"no weights of efficientsam_{backbone}"):
            find_weights(tmp_path, backbone, names)
    else:
        assert find_weights(tmp_path, backbone, names) == str(tmp_path / found)


def test_a_folder_of_that_name_is_no_weights(tmp_path):
    (tmp_path / "efficient_sam_vitt.pth").mkdir()
    with pytest.raises(InputError, match="no weights of efficientsam_vitt"):
        find_weights(str(tmp_path), "vitt")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "module."])
def test_names_that_compiling_or_several_gpus_put_before_them_are_left_out(tmp_path, prefix):
    network = EfficientSAM("vitt", 64)
    state = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    torch.save(
        {"model": state, "best": np.float64(0.5), "epoch": np.int64(3), "flag": np.bool_(True)}, tmp_path / "a.pt"
    )
    loaded = load_weights(EfficientSAM("vitt", 64), tmp_path / "a.pt").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())
