# SPDX-License-Identifier: Apache-2.0
"""Time an image's encoding and a click's decoding by torch, ONNX Runtime and OpenVINO, on the CPU.

    python -m tools.benchmark_backends --image-sizes 256 512 1024 --threads 2

Beside each time stands how many times as long it is as its arithmetic takes at the rate of a plain float32 matrix
product on this machine, in this run, with as many threads. --int8 also times an encoder of 8 bits, calibrated on
pictures.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from scripts.errors import InputError
from scripts.export import use_backend
from scripts.export.__main__ import read_images
from scripts.export.backends import BACKENDS
from scripts.export.int8 import MAX_CALIBRATION_IMAGES, quantize_encoder
from scripts.networks import EfficientSAM
from scripts.networks.efficient_sam import BACKBONES
from tools.benchmark import Row, count_flop, device_name, measure_matmul, time_call

COLUMNS = ("image size", "backend", "encoder, ms", "GFLOP", "times the product's time", "decoder, ms a click")
INT8 = "onnxruntime, 8 bits"


def prepare(network: EfficientSAM, backends: list[str], pictures: str | None, folder: Path) -> dict[str, Any]:
    """Return the network by each backend, and of 8 bits where there are pictures.

    Args:
        network: a :class:`scripts.networks.promptable.Promptable`.
        backends: names.
        pictures: a folder of them, or nothing.
        folder: for what is exported.
    """
    answering: dict[str, Any] = {backend: use_backend(network, backend, str(folder)) for backend in backends}
    if pictures:
        use_backend(network, "onnxruntime", str(folder))
        (written,) = (folder / "exported").iterdir()
        quantized = shutil.copytree(written, folder / "int8")
        images = read_images(pictures, str(folder), MAX_CALIBRATION_IMAGES)
        print(quantize_encoder(network, quantized, images), file=sys.stderr)
        answering[INT8] = use_backend(network, "onnxruntime", str(folder), str(quantized))
    return answering


def measure(answering: Any, size: int, repeats: int) -> tuple[float, float]:
    """Return the seconds of an encoding and of a click: medians of so many, after one to warm up.

    Args:
        answering: network by backend.
        size: (H, W) of the image.
        repeats: of each.
    """
    image, click = torch.rand(1, 3, size, size), (torch.full((1, 1, 1, 2), size / 2), torch.ones(1, 1, 1).long())
    embeddings = answering.encode_image(image)
    calls = (lambda: answering.encode_image(image), lambda: answering.decode_best(embeddings, *click, (size, size)))
    encode, decode = (statistics.median([time_call(call, "cpu") for _ in range(repeats + 1)][1:]) for call in calls)
    return encode, decode


def main(argv: list[str] | None = None) -> None:
    """Run the command and print a table.

    Raises:
        InputError: when a package or the pictures are missing.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark_backends", description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=list(BACKBONES), default="vitt")
    parser.add_argument("--image-sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--int8", metavar="PICTURES", help="a folder to calibrate on")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    lines, rates = [], [measure_matmul(given.threads, "cpu")]
    for size in given.image_sizes:
        network = EfficientSAM(given.backbone, size).eval().requires_grad_(False)
        gflop = count_flop(Row(given.backbone, size, "encode_image", 1, given.repeats, given.threads, "cpu")) / 1e9
        with tempfile.TemporaryDirectory() as work, torch.no_grad():
            for name, answering in prepare(network, given.backends, given.int8, Path(work)).items():
                encode, decode = measure(answering, size, given.repeats)
                lines.append((size, name, encode, gflop, decode))
                print(f"{name} at {size}: {1e3 * encode:.0f} ms, {1e3 * decode:.1f} ms a click", file=sys.stderr)
        rates.append(measure_matmul(given.threads, "cpu"))
    rate = statistics.median(rates)
    print(
        f"torch {torch.__version__}, {device_name('cpu')}, {given.backbone}, {given.threads} threads, median of "
        f"{given.repeats}; float32 matmul {rate:.0f} GFLOP/s ({min(rates):.0f} to {max(rates):.0f})\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for size, name, encode, gflop, decode in lines:
        times = encode * rate / gflop
        print(f"| {size} | {name} | {1e3 * encode:.0f} | {gflop:.1f} | {times:.2f} | {1e3 * decode:.1f} |")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
