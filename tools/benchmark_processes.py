# SPDX-License-Identifier: Apache-2.0
"""Images a second of training and of prediction with several processes on one machine, over Gloo.

    python -m tools.benchmark_processes --layouts 1x1 1x2 2x1 4x1

A layout is processes x threads of each. The images of a step are the same number in all, shared by the processes. What
starting costs is taken off: the time is that of a long run less that of a short one.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from scripts.data import make_sample

ROOT = Path(__file__).parents[1]
BATCH = 4  # images of a step, of all processes
TRAIN = ["configs/train.yaml", "configs/multi_gpu.yaml"]
PREDICT = ["configs/inference.yaml", "configs/multi_gpu_inference.yaml"]


def run(layout: str, run_id: str, files: list[str], **settings: Any) -> tuple[float, float]:
    """Run the bundle by torchrun.

    Args:
        layout: processes x threads of each.
        run_id: such as ``training``.
        files: configs.
        settings: of the command line.

    Returns:
        Seconds, and the most MB that all processes have held together.
    """
    processes, threads = layout.split("x")
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m", "monai.bundle"]
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, *torchrun, "run", run_id, "--config_file", str(files), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    began, most = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as said:
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        while running.returncode is None:
            most = max(most, memory_of(running.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(1)  # looking more often takes time from what is measured
        taken = time.perf_counter() - began
        said.seek(0)
        if running.returncode:
            told = said.read()
            sys.exit(next((line for line in told.splitlines() if "error: " in line), told[-2000:]))
    return taken, most


def memory_of(pid: int) -> float:
    """Return MB of a process and all its children; what they share is counted once.

    Args:
        pid: of the process.
    """
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # one ended meanwhile
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_full_info().pss
    return total / 1e6


def main(argv: list[str] | None = None) -> None:
    """Train and predict by each layout, and print a row of the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark_processes", description=__doc__.splitlines()[0])
    parser.add_argument("--layouts", nargs="+", default=["1x1", "1x2", "2x1", "4x1"])
    parser.add_argument(
        "--images", type=int, default=48, help="of a pass of training; four times as many are predicted"
    )
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--backends", nargs="+", default=["torch", "openvino"], help="that predict")
    given = parser.parse_args(argv)
    works = ["training", *(f"prediction, {backend}" for backend in given.backends)]
    print("| processes x threads | " + " | ".join(f"{work}, images/s | MB" for work in works) + " |")
    print("|---" * (1 + 2 * len(works)) + "|")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        sample = make_sample(folder / "sample", count=4 * given.images)
        images = sorted((sample / "images").iterdir())
        lists = {}
        for name, count in {"short": BATCH, "long": 4 * given.images}.items():
            lists[name] = folder / f"{name}.json"
            lists[name].write_text(
                json.dumps([{"image": str(path), "points": [[128, 128, 1]]} for path in images[:count]])
            )
        own = {"image_size": given.image_size, "cache_dir": folder / "cache"}
        predict = {**own, "output_dir": folder / "out"}
        for backend in given.backends:  # its files are written once, and not while it is measured
            run(given.layouts[0], "inferring", PREDICT, **predict, backend=backend, dataset_dir=lists["short"])
        for layout in given.layouts:
            batch = BATCH // int(layout.split("x")[0])
            train = {**own, "output_dir": folder / "eval", "ckpt_dir": folder / "models", "dataset_dir": sample}
            train |= {"train#sampler#num_samples": given.images, "validate#dataset#data": [], "batch_size": batch}
            short, _ = run(layout, "training", TRAIN, **train, max_epochs=1)
            long, training = run(layout, "training", TRAIN, **train, max_epochs=4)
            found = [(3 * given.images / (long - short), training)]
            for backend in given.backends:
                predict["backend"] = backend
                short, _ = run(layout, "inferring", PREDICT, **predict, dataset_dir=lists["short"])
                long, predicting = run(layout, "inferring", PREDICT, **predict, dataset_dir=lists["long"])
                found.append(((4 * given.images - BATCH) / (long - short), predicting))
            cells = [cell for rate, most in found for cell in (f"{rate:.2f}", f"{most:.0f}")]
            print(f"| {layout} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
