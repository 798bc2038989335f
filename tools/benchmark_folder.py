# SPDX-License-Identifier: Apache-2.0
"""Throughput of inferring on a folder of pictures, beside the rate of the encoder alone, and memory as it goes.

    python -m tools.benchmark_folder --count 200 --backends torch openvino --threads 2

Each picture is prompted by one click, and its mask, overlay, table and report are written. The encoder's rate is that
of the same network on pictures that are in memory, one at a time, in the same run.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import psutil
import torch
from monai.bundle import ConfigParser

from scripts.data import make_sample

INFERENCE = Path(__file__).parents[1] / "configs" / "inference.yaml"


def measure(folder: Path, listed: Path, backend: str, cache_dir: str) -> tuple[float, float, list[float]]:
    """Segment a list of pictures.

    Args:
        folder: to write to.
        listed: the list.
        backend: that answers.
        cache_dir: where its files are kept.

    Returns:
        Seconds of the whole, seconds of encoding as many pictures, and MiB after each picture.
    """
    parser = ConfigParser()
    parser.read_config(str(INFERENCE))
    parser.update({"dataset_dir": str(listed), "output_dir": str(folder), "backend": backend, "cache_dir": cache_dir})
    evaluator, network = parser.get_parsed_content("evaluator"), parser.get_parsed_content("answering").eval()
    count, side = len(json.loads(listed.read_text())), network.image_size
    image = torch.rand(1, 3, side, side)
    with torch.no_grad():
        network.encode_image(image)  # once for nothing
        began = time.perf_counter()
        for _ in range(count):
            network.encode_image(image)
        encoding = time.perf_counter() - began
    process, memory = psutil.Process(), []
    evaluator.add_event_handler("ITERATION_COMPLETED", lambda _: memory.append(process.memory_info().rss / 2**20))
    began = time.perf_counter()
    evaluator.run()
    return time.perf_counter() - began, encoding, memory


def main(argv: list[str] | None = None) -> None:
    """Draw pictures, and print a line for each backend."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark_folder", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--backends", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache_dir", default=".cache")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as work:
        sample = make_sample(Path(work) / "sample", count=given.count)
        images = sorted((sample / "images").iterdir())
        listed = Path(work) / "list.json"
        listed.write_text(json.dumps([{"image": str(path), "points": [[128, 128, 1]]} for path in images]))
        print("| backend | pictures/s | encoder alone, pictures/s | share | MiB after a tenth | MiB at the end |")
        print("|---|---|---|---|---|---|")
        for backend in given.backends:
            whole, encoding, memory = measure(Path(work) / backend, listed, backend, given.cache_dir)
            rates = f"{given.count / whole:.1f} | {given.count / encoding:.1f} | {encoding / whole:.0%}"
            print(f"| {backend} | {rates} | {memory[len(memory) // 10]:.0f} | {memory[-1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
