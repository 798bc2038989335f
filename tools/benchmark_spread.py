# SPDX-License-Identifier: Apache-2.0
"""Time one click on a volume until the whole object is found, and the memory that it takes, by the real command.

    python -m tools.benchmark_spread --volume 256 256 60 --backends torch openvino --threads 2

The volume is made: noise, and in it a bright tilted tube through all slices but two at each end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from scripts.export.backends import BACKENDS
from tools.benchmark import device_name, status_bytes

ROOT = Path(__file__).parents[1]
COLUMNS = ("volume", "backend", "slices", "Dice", "spread, s", "a slice, ms", "command, s", "memory, GiB")


def make_volume(shape: Sequence[int], path: Path) -> np.ndarray:
    """Write a volume as NIfTI and return where its object is, (X, Y, Z) bool.

    Args:
        shape: (X, Y, Z) in voxels.
        path: of the file.
    """
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    middle = shape[0] / 2 + 0.2 * shape[0] * (z / shape[2] - 0.5)
    tube = ((x - middle) / (0.2 * shape[0])) ** 2 + ((y - shape[1] / 2) / (0.15 * shape[1])) ** 2 < 1
    tube = tube & (z >= 2) & (z < shape[2] - 2)
    volume = np.random.default_rng(0).integers(50, 70, tuple(shape), dtype=np.int16)
    volume[tube] += 120
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    return tube


def measure(shape: Sequence[int], backend: str, threads: int, weights: str) -> dict[str, str]:
    """Run the command on a made volume and return a row of the table.

    Args:
        shape: (X, Y, Z) in voxels.
        backend: that runs the network.
        threads: of the processor.
        weights: path of a checkpoint.
    """
    with tempfile.TemporaryDirectory() as folder:
        truth = make_volume(shape, Path(folder) / "volume.nii.gz")
        place = [shape[0] // 2, shape[1] // 2, shape[2] // 2, 1]
        command = [sys.executable, "-m", "monai.bundle", "run", "inferring", "--config_file"]
        command += ["['configs/inference.yaml','configs/spread.yaml']", "--dataset_dir", f"{folder}/volume.nii.gz"]
        command += ["--points", f"[{place}]", "--backend", backend, "--ckpt_path", weights]
        command += ["--output_dir", f"{folder}/out", "--cache_dir", f"{folder}/cache"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        seconds, most = {}, 0
        for run in ("with export", "warm"):  # the first writes the network's files
            with open(f"{folder}/log", "w") as log:
                started = os.times().elapsed
                process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
                while process.poll() is None:  # what wait4 would tell starts from the peak of this process
                    most = max(most, status_bytes(process.pid, "VmHWM"))
                    time.sleep(0.1)
                seconds[run] = os.times().elapsed - started
            if process.returncode:
                raise SystemExit(f"error: the command failed: {Path(f'{folder}/log').read_text()[-2000:]}")
        report = json.loads(Path(f"{folder}/out/volume_prediction.json").read_text())
        found = np.asarray(nibabel.load(f"{folder}/out/volume_mask.nii.gz").dataobj) > 0  # type: ignore[attr-defined]
        slices = int(found.any((0, 1)).sum())
    values = [
        " x ".join(map(str, shape)),
        backend,
        str(slices),
        f"{2 * (found & truth).sum() / (found.sum() + truth.sum()):.3f}",
        f"{report['seconds']:.1f}",
        f"{1000 * report['seconds'] / max(slices, 1):.0f}",
        f"{seconds['warm']:.1f}",
        f"{most / 2**30:.2f}",
    ]
    return dict(zip(COLUMNS, values, strict=True))


def main(argv: list[str] | None = None) -> None:
    """Run the command and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark_spread", description=__doc__.splitlines()[0])
    parser.add_argument("--volume", nargs=3, type=int, default=[256, 256, 60], metavar=("X", "Y", "Z"))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["torch"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--weights", default="models/efficient_sam_vitt_base.pth")
    given = parser.parse_args(argv)
    print(f"{device_name('cpu')}, {given.threads} threads\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for backend in given.backends:
        print(f"| {' | '.join(measure(given.volume, backend, given.threads, given.weights).values())} |", flush=True)


if __name__ == "__main__":
    main()
