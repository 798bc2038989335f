# SPDX-License-Identifier: Apache-2.0
"""Write a network for others to run, and check on images that the files answer as it does.

    python -m scripts.export onnx --ckpt_path models/model.pt
    python -m scripts.export sam --ckpt_path models/model.pt

onnx writes encoder.onnx, decoder.onnx and model.onnx (both as one); openvino the same in OpenVINO's form; sam a pair of
ONNX files with segment-anything's names and shapes; torchscript model.ts. The network is built from the settings that
the checkpoint holds, its adapters as they were trained. Files that differ from it are refused.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..data import find_inputs
from ..errors import InputError
from ..networks import EfficientSAM, find_weights, load, merge_adapters
from ..transforms import LoadCheckedImaged, ToRGB
from .checks import check_pair, check_sam, check_torchscript, check_whole
from .int8 import MAX_CALIBRATION_IMAGES, quantize_encoder
from .writers import write_onnx, write_openvino, write_sam, write_torchscript

FORMATS = ("onnx", "openvino", "sam", "torchscript")


def read_images(path: str | None, cache_dir: str, count: int) -> list[Tensor]:
    """Read the first pictures of a folder or a list, or of the built-in sample, as (1, 3, H, W) RGB in 0..1.

    Args:
        path: of a file, a list or a folder of pictures.
        cache_dir: where the built-in sample is made.
        count: of pictures at most.
    """
    load, to_rgb = LoadCheckedImaged("image"), ToRGB()
    paths = [item["image"] for item in find_inputs(path, cache_dir)[:count]]
    images = [to_rgb(load({"image": each})["image"]).as_tensor() for each in paths]
    return [(image[..., 0] if image.ndim == 4 else image).transpose(1, 2)[None].contiguous() for image in images]


def export(network: EfficientSAM, form: str, folder: Path, images: list[Tensor], height_first: bool) -> list[str]:
    """Write and check one form; give a line for each thing that was checked.

    Args:
        network: to export.
        form: one of the forms of export.
        folder: to write to.
        images: (1, 3, H, W) each, RGB in 0..1.
        height_first: whether the pair's clicks are (row, column).
    """
    if form == "torchscript":
        write_torchscript(network, folder)
        results = {"model.ts": check_torchscript(network, folder, images)}
    elif form == "sam":
        write_sam(network, folder, height_first)
        results = {"sam_encoder.onnx, sam_decoder.onnx": check_sam(network, folder, images, height_first)}
    else:
        backend, suffix = ("openvino", "xml") if form == "openvino" else ("onnxruntime", "onnx")
        (write_openvino if form == "openvino" else write_onnx)(network, folder)
        results = {
            f"encoder.{suffix}, decoder.{suffix}": check_pair(network, folder, backend, images),
            f"model.{suffix}": check_whole(network, folder, backend, images),
        }
    return [
        f"{name}: at most {deviation:.1e} of the largest value away, {agreement:.4%} of pixels agree"
        for name, (deviation, agreement) in results.items()
    ]


def main(argv: list[str] | None = None) -> None:
    """Run the command.

    Raises:
        InputError: when the weights, the images or a package are missing, or a file answers differently.
    """
    parser = argparse.ArgumentParser(
        prog="python -m scripts.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("form", choices=FORMATS)
    parser.add_argument("--ckpt_path", help="weights; models/model.pt, else the best in models, unless given")
    parser.add_argument("--output_dir", help="models/<form> unless given")
    parser.add_argument("--image_size", type=int, help="of weights without settings, such as the base")
    parser.add_argument("--images", help="a picture, a folder or a list to check on; the built-in sample unless given")
    parser.add_argument("--count", type=int, default=10, help="of pictures to check on")
    parser.add_argument(
        "--height_first", action="store_true", help="sam: take (H, W, 3) in 0..255, as AnyLabeling does"
    )
    parser.add_argument(
        "--int8", action="store_true", help="onnx: an encoder of 8 bits, calibrated on --images: not exact"
    )
    parser.add_argument("--cache_dir", default=".cache")
    given = parser.parse_args(argv)
    if given.int8 and (given.form != "onnx" or not given.images):
        raise InputError("--int8 is of onnx, and calibrated on the pictures that --images gives")
    weights = given.ckpt_path or find_weights("models", None, ["model.pt"])
    network = merge_adapters(load(weights, image_size=given.image_size)).eval().requires_grad_(False)
    if network.settings.layout is not None and given.form == "sam":
        raise InputError(
            "these weights answer with a mask for each class: export onnx, whose decoder gives all of them"
        )
    images = read_images(given.images, given.cache_dir, given.count)
    folder = Path(given.output_dir or f"models/{given.form}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work, torch.no_grad():
        for line in export(network, given.form, Path(work), images, given.height_first):
            print(line)
        if given.int8:
            more = read_images(given.images, given.cache_dir, max(given.count, MAX_CALIBRATION_IMAGES))
            print(quantize_encoder(network, Path(work), more))
        folder.mkdir(exist_ok=True)
        for path in Path(work).iterdir():  # only what was found to be right is kept
            shutil.move(path, folder / path.name)
    print(f"wrote {folder}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
