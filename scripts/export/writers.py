# SPDX-License-Identifier: Apache-2.0
"""Write a network's files."""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import
from torch import Tensor, nn
from torch.export import Dim

from ..errors import InputError
from ..networks import EfficientSAM
from ..networks.promptable import Promptable
from .modules import Decoder, Encoder, FullModel, SamDecoder, SamEncoder

SETTINGS = "settings.json"
DECODER_INPUTS = ("embeddings", "points", "point_labels", "size", "mask_prompt", "has_mask")
SAM_INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")
SAM_OUTPUTS = ("masks", "iou_predictions", "low_res_masks")


def write_onnx(network: EfficientSAM, folder: Path) -> None:
    """Write what :func:`write_pair` writes and, of both as one, ``model.onnx``.

    :class:`scripts.export.modules.FullModel` says what goes in.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        folder: to write to.
    """
    write_pair(network, folder)
    names = ("image", "points", "point_labels")
    write(FullModel(network), folder / "model.onnx", example_of(network), free_axes(), names, ("masks", "iou"))


def write_pair(network: EfficientSAM, folder: Path) -> None:
    """Write ``encoder.onnx`` and ``decoder.onnx``, which answer click by click.

    Numbers of images, objects and points and the images' sizes are free. :class:`scripts.export.modules.Decoder` says
    what goes in.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        folder: to write to.
    """
    image, of_points, of_labels = free_axes()
    example = example_of(network)
    write(Encoder(network), folder / "encoder.onnx", example[:1], (image,), ("image",), ("embeddings",))
    batch, objects = of_points[0], of_points[1]
    shapes: tuple[dict, ...] = ({0: batch}, of_points, of_labels, {}, {0: batch, 1: objects}, {})
    embeddings = network.encode_image(example[0])
    mask = torch.zeros(2, 3, 1, network.mask_size, network.mask_size)
    inputs = (embeddings, *example[1:], torch.tensor([48.0, 80.0]), mask, torch.ones(1))
    write(Decoder(network), folder / "decoder.onnx", inputs, shapes, DECODER_INPUTS, ("logits", "iou"))
    write_settings(network, folder)


def free_axes() -> tuple[dict, dict, dict]:
    """Return which axes of images, points and their labels are free."""
    batch, objects, points = Dim("batch"), Dim("objects"), Dim("points")
    prompts = {0: batch, 1: objects, 2: points}
    return {0: batch, 2: Dim("height"), 3: Dim("width")}, prompts, prompts


def write_sam(network: EfficientSAM, folder: Path, height_first: bool = False) -> None:
    """Write ``sam_encoder.onnx`` and ``sam_decoder.onnx``, which tools for segment-anything load.

    Args:
        network: to write.
        folder: to write to.
        height_first: see :class:`scripts.export.modules.SamEncoder`.
    """
    height, width, points = Dim("height"), Dim("width"), Dim("points")
    image = torch.rand(48, 80, 3) if height_first else torch.rand(1, 3, 48, 80)
    shape = {0: height, 1: width} if height_first else {2: height, 3: width}
    encoder = SamEncoder(network, height_first)
    write(encoder, folder / "sam_encoder.onnx", (image,), (shape,), ("input_image",), ("image_embeddings",))
    inputs = (
        encoder(image),
        torch.full((1, 3, 2), 40.0),
        torch.ones(1, 3),
        torch.zeros(1, 1, 256, 256),
        torch.ones(1),
        torch.tensor([48.0, 80.0]),
    )
    shapes: tuple[dict, ...] = ({}, {1: points}, {1: points}, {}, {}, {})
    write(SamDecoder(network), folder / "sam_decoder.onnx", inputs, shapes, SAM_INPUTS, SAM_OUTPUTS)


def write_openvino(network: EfficientSAM, folder: Path) -> None:
    """Write OpenVINO's form (``.xml`` and ``.bin``) of what :func:`write_onnx` writes, in float32.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        folder: to write to.
    """
    openvino = require_package("openvino")
    with tempfile.TemporaryDirectory() as work:
        write_onnx(network, Path(work))
        for path in Path(work).glob("*.onnx"):
            model = openvino.convert_model(path)
            openvino.save_model(model, folder / f"{path.stem}.xml", compress_to_fp16=False)
    write_settings(network, folder)


def write_torchscript(network: EfficientSAM, folder: Path) -> None:
    """Write ``model.ts``, which has ``encode_image`` and ``decode`` beside the whole.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        folder: to write to.
    """
    torch.jit.script(network).save(str(folder / "model.ts"))
    write_settings(network, folder)


def write(
    part: nn.Module,
    path: Path,
    example: Sequence[Tensor],
    shapes: Sequence[dict],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Write one ONNX file by torch's exporter, without what it says on the way.

    Args:
        part: a module to trace.
        path: of the file.
        example: inputs of the right shapes.
        shapes: which axes are free, by input.
        inputs: their names.
        outputs: their names.
    """
    require_package("onnxscript")
    with quiet():
        torch.onnx.export(
            part.eval(),
            tuple(example),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(shapes),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def example_of(network: EfficientSAM) -> tuple[Tensor, Tensor, Tensor]:
    """Return two images of 48 x 80 pixels and three objects of four points on each."""
    points = torch.rand(2, 3, 4, 2, generator=torch.Generator().manual_seed(0)) * 40
    return torch.rand(2, 3, 48, 80), points, torch.ones(2, 3, 4, dtype=torch.int64)


def write_settings(network: EfficientSAM, folder: Path) -> None:
    """Write which network the files are of.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        folder: to write to.
    """
    (folder / SETTINGS).write_text(json.dumps(sizes_of(network)) + "\n")


def sizes_of(network: Promptable) -> dict[str, int]:
    """Return the sizes of a network that its files must share."""
    return {"image_size": network.image_size, "mask_size": network.mask_size}


def require_package(name: str) -> Any:
    """Import a package that only exports need.

    Raises:
        InputError: when it is not there, saying how to get it.
    """
    package, is_there = optional_import(name)
    if not is_there:
        raise InputError(f"this takes {name}: pip install {'onnx onnxscript' if name == 'onnxscript' else name}")
    return package


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings that say nothing to a user: of ops that are not used, and of a graph as it is traced."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        told = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
