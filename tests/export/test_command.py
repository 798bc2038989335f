# SPDX-License-Identifier: Apache-2.0
"""Networks that are written, and predictions by what is written."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

import scripts.export.__main__ as command
from scripts.errors import InputError
from scripts.export import ExportedNetwork, backends, choose_backend, use_backend, writers
from scripts.export.int8 import quantize_encoder
from scripts.inferers import PromptedSliceInferer
from scripts.networks import Settings, build_network
from scripts.transforms import RequestPromptsd, ToRGB
from tests.e2e.bundle import INFERENCE, run_warm
from tests.e2e.datasets import disc, picture
from tests.files import write_picture

pytestmark = pytest.mark.slow
SIZES = [(64, 64), (50, 90), (130, 70)]  # H, W
PAIR = ("decoder", "encoder", "model")
PROMPTS = {"points": [[[30, 30, 1], [5, 5, 0]], [[45, 20, 1]]], "boxes": [[10, 10, 50, 45]] * 2}


@pytest.fixture(scope="module")
def network():
    """A network whose adapters do something, of two blocks, which export in a fraction of the time."""
    torch.manual_seed(0)
    adapters = [{"kind": "bottleneck"}, {"kind": "lora"}]
    network = build_network(Settings("vitt", 64, adapters=adapters))
    for parameter in network.parameters():
        if not parameter.any():  # what starts at zero
            torch.nn.init.normal_(parameter, std=0.05)
    network.image_encoder.blocks = network.image_encoder.blocks[:2]
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, (height, width) in enumerate(SIZES):
        write_picture(folder / f"{i}.png", picture(disc(i, 140)[:height, :width], i))
    return folder


@pytest.fixture(scope="module")
def written(network, images, tmp_path_factory):
    """What the command writes as ONNX, and what it says of it."""
    folder = tmp_path_factory.mktemp("onnx")
    return folder, command.export(network, "onnx", folder, command.read_images(str(images), "", 3), False)


@pytest.fixture
def write_copies(written, monkeypatch):
    """Copy what has been written where it would be written anew."""
    for module, name in ((command, "write_onnx"), (writers, "write_onnx"), (backends, "write_pair")):
        monkeypatch.setattr(module, name, lambda _, folder: shutil.copytree(written[0], folder, dirs_exist_ok=True))


def test_onnx_is_written_and_found_to_answer_as_the_network(written):
    folder, said = written
    assert sorted(path.name for path in folder.iterdir()) == [*(f"{name}.onnx" for name in PAIR), "settings.json"]
    assert [line.split(":")[0] for line in said] == ["encoder.onnx, decoder.onnx", "model.onnx"]
    assert onnxruntime.InferenceSession(folder / "decoder.onnx").get_inputs()[1].shape == [
        "batch",
        "objects",
        "points",
        2,
    ]


def test_openvinos_form_is_written_and_found_to_answer_as_the_network(network, images, write_copies, tmp_path):
    said = command.export(network, "openvino", tmp_path, command.read_images(str(images), "", 3), False)
    assert len(list(tmp_path.glob("*.xml"))) == len(list(tmp_path.glob("*.bin"))) == 3
    assert [line.split(":")[0] for line in said] == ["encoder.xml, decoder.xml", "model.xml"]


def test_the_sam_pair_has_segment_anythings_names(network, images, tmp_path):
    command.export(network, "sam", tmp_path, command.read_images(str(images), "", 3), False)
    session = onnxruntime.InferenceSession(tmp_path / "sam_decoder.onnx")
    names = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"]
    assert [each.name for each in session.get_inputs()] == names
    assert [each.name for each in session.get_outputs()] == ["masks", "iou_predictions", "low_res_masks"]


def save_checkpoint(path):
    settings = Settings("vitt", 64)
    torch.save({"model": build_network(settings).state_dict(), "settings": settings.state_dict()}, path)


def test_the_command_writes_what_a_checkpoint_holds(images, tmp_path, capsys):
    settings = Settings("vitt", 64)
    torch.save(
        {"model": build_network(settings).state_dict(), "settings": settings.state_dict()}, tmp_path / "model.pt"
    )
    given = ["--ckpt_path", tmp_path / "model.pt", "--output_dir", tmp_path / "out", "--images", images]
    command.main(["torchscript", *map(str, given)])
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {tmp_path}/out"
    scripted = torch.jit.load(str(tmp_path / "out" / "model.ts"))
    assert scripted.encode_image(torch.rand(1, 3, 50, 90)).shape == (1, 256, 4, 4)


def test_what_answers_differently_is_refused_and_not_kept(images, write_copies, tmp_path):
    """The files that are written are of another network."""
    settings = Settings("vitt", 64)
    torch.save(
        {"model": build_network(settings).state_dict(), "settings": settings.state_dict()}, tmp_path / "model.pt"
    )
    given = ["--ckpt_path", tmp_path / "model.pt", "--output_dir", tmp_path / "out", "--images", images]
    with pytest.raises(InputError, match="differs from the network by"):
        command.main(["onnx", *map(str, given)])
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_an_encoder_of_8_bits_is_smaller_and_near(network, images, written, tmp_path):
    folder = shutil.copytree(written[0], tmp_path / "int8")
    said = quantize_encoder(network, folder, command.read_images(str(images), "", 3))
    assert said.startswith("encoder.onnx has 8 bits, calibrated on 3 images: ")
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in written[0].iterdir())
    assert (folder / "encoder.onnx").stat().st_size < 0.6 * (written[0] / "encoder.onnx").stat().st_size
    image = torch.rand(1, 3, 64, 64)
    near, exact = (ExportedNetwork(network, each, "onnxruntime").encode_image(image) for each in (folder, written[0]))
    assert 0 < (near - exact).abs().mean() < 0.2 * exact.abs().mean()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_inferer_answers_by_a_backend_as_by_torch(network, images, written, backend):
    exported = use_backend(network, backend, "", str(written[0]))
    for image in command.read_images(str(images), "", 3):
        answers = []
        for answering in (network, exported):
            item = RequestPromptsd(**PROMPTS)({"image": command_image(image)})
            answers.append(PromptedSliceInferer(to_rgb=ToRGB())(item["image"][None], answering).as_tensor())
        torch.testing.assert_close(answers[1], answers[0], rtol=1e-3, atol=1e-3)


def command_image(image):
    """Turn (1, 3, H, W) in 0..1 into the picture (3, X, Y) that a reader gives."""
    return MetaTensor((255 * image[0]).round().to(torch.uint8).transpose(1, 2))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_predictions_are_made_by_the_files_that_are_given(images, written, tmp_path, backend):
    asked = {"dataset_dir": images, "image_size": 64, "ckpt_path": "models/efficient_sam_vitt_base.pth", **PROMPTS}
    given = {**asked, "backend": backend, "exported_dir": written[0], "output_dir": tmp_path / "out"}
    result = run_warm("inferring", INFERENCE, **given)
    assert result.code == 0, result.err
    iou = [json.loads((tmp_path / "out" / f"{i}_prediction.json").read_text())["objects"] for i in range(3)]
    assert len({entry["predicted_iou"] for objects in iou for entry in objects}) > 3
    assert np.asarray(Image.open(tmp_path / "out" / "2_mask.png")).shape == SIZES[2]


def test_files_are_written_once_for_the_same_weights(write_copies, tmp_path):
    network = build_network(Settings("vitt", 64))
    use_backend(network, "onnxruntime", str(tmp_path))
    (kept,) = (tmp_path / "exported").iterdir()
    state = kept.stat().st_ino
    use_backend(network, "onnxruntime", str(tmp_path))
    assert kept.stat().st_ino == state
    torch.nn.init.ones_(network.mask_decoder.iou_token.weight)
    use_backend(network, "onnxruntime", str(tmp_path))
    assert len(list((tmp_path / "exported").iterdir())) == 2


def test_two_first_exports_at_once_keep_the_files_of_one(write_copies, tmp_path, monkeypatch):
    """The second one deleted the files of the first, which was reading them."""
    write, kept, network = backends.write_pair, [], build_network(Settings("vitt", 64))

    def second(network, folder):
        monkeypatch.setattr(backends, "write_pair", write)
        use_backend(network, "onnxruntime", str(tmp_path))  # another process is done in the meantime
        kept.extend(path for path in (tmp_path / "exported").iterdir() if path != folder)
        (kept[0] / "read by another").touch()
        write(network, folder)

    monkeypatch.setattr(backends, "write_pair", second)
    use_backend(network, "onnxruntime", str(tmp_path))
    assert list((tmp_path / "exported").iterdir()) == kept
    assert (kept[0] / "read by another").exists()


@pytest.mark.parametrize(
    ("backend", "device", "missing", "chosen"),
    [
        ("auto", "cpu", (), "openvino"),
        ("auto", "cpu", ("openvino",), "torch"),
        ("auto", "cpu", ("onnxscript",), "torch"),
        ("auto", "cuda:0", (), "torch"),
        ("onnxruntime", "cpu", ("openvino",), "onnxruntime"),
        ("torch", "cpu", (), "torch"),
    ],
)
def test_auto_is_openvino_where_it_is_installed_and_on_a_cpu(monkeypatch, backend, device, missing, chosen):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None if name in missing else name)
    assert choose_backend(backend, device) == chosen


@pytest.mark.parametrize(
    ("backend", "folder", "said"),
    [("tensorrt", None, "backend is one of torch, onnxruntime"), ("openvino", "absent", "no exported network")],
)
def test_what_is_missing_is_said(tmp_path, backend, folder, said):
    with pytest.raises(InputError, match=said):
        use_backend(build_network(Settings("vitt", 64)), backend, str(tmp_path), folder and str(tmp_path / folder))


def test_masks_for_classes_are_not_written_as_one_best(tmp_path):
    settings = Settings("vitt", 64, class_masks=True, classes={"disc": [1, 2], "cup": [2]})
    torch.save(
        {"model": build_network(settings).state_dict(), "settings": settings.state_dict()}, tmp_path / "model.pt"
    )
    with pytest.raises(InputError, match="a mask for each class: export onnx"):
        command.main(["sam", "--ckpt_path", str(tmp_path / "model.pt")])


def test_8_bits_need_images_to_calibrate_on():
    with pytest.raises(InputError, match="calibrated on the pictures that --images gives"):
        command.main(["onnx", "--int8"])
