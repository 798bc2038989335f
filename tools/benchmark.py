# SPDX-License-Identifier: Apache-2.0
"""Time, memory and arithmetic of a training step, of encoding an image and of decoding a click.

    python -m tools.benchmark --backbones vitt vits --image-sizes 256 512 --threads 2

Each row runs in a process of its own, so that its peak memory is its own. Memory is what the work adds: inputs, weights
and libraries are there before it. Arithmetic is matrix products and convolutions, as torch counts them; beside its rate
stands that of a plain float32 matrix product on this machine, in this run, with as many threads. Where that product's
rates before and after the rows differ much, the machine was busy: run again.
"""

import argparse
import contextlib
import json
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scripts.engines import TrainingSimulator
from scripts.errors import InputError
from scripts.losses import PromptedMaskLoss
from scripts.networks import add_adapters, checkpoint_activations, trainable_parameters
from scripts.networks.image_encoder import PATCH_SIZE
from scripts.networks.registry import MODELS, SHORT_NAMES, full_name

Call = Callable[[], object]  # what is timed

TRAIN = Path(__file__).parents[1] / "configs" / "train.yaml"
MATRIX_SIZE, MATRIX_REPEATS = 2048, 9
COMPILED = "training step, compiled"
FULL = "training step, 4 rounds, 4 objects"  # as by default
COLUMNS = {  # of the table, and how each is written
    **dict.fromkeys(("backbone", "image size", "work", "batch"), ""),
    **{"ms": ".1f", "MB": ".1f", "GFLOP": ".2f", "GFLOP/s": ".1f", "share of matmul": ".1%"},
}


@dataclass(frozen=True)
class Row:
    """One thing to measure."""

    backbone: str
    image_size: int
    work: str
    batch: int
    repeats: int
    threads: int
    device: str


def make_network(row: Row) -> Any:
    """Build the network of a row, with random weights."""
    return MODELS[full_name(row.backbone)].build(row.image_size, False)


def prepare_training_step(
    row: Row, device: str, rounds: int = 1, objects: int = 1, checkpointed: bool = False, compiled: bool = False
) -> Call:
    """Build one step of adapter training: all rounds, the loss of the trained ones as in train.yaml, backward, AdamW.

    Args:
        row: of the table.
        device: ``cpu`` or ``cuda``.
        rounds: of corrections.
        objects: of each image.
        checkpointed: whether activations are computed again.
        compiled: whether encoder and mask decoder are compiled by ``torch.compile``, at the first step.
    """
    network = add_adapters(make_network(row)).to(device).train()
    checkpoint_activations(network, checkpointed)
    if compiled:
        network.image_encoder.compile()
        network.mask_decoder.compile()
    clicks = TrainingSimulator(network, rounds, gradient_rounds=min(rounds, 2))
    clicks.draw_rounds = lambda: rounds  # type: ignore[method-assign]  # always the most
    optimizer = torch.optim.AdamW(trainable_parameters(network), lr=1e-4)
    parser = ConfigParser()
    parser.read_config(str(TRAIN))
    loss = PromptedMaskLoss(parser.get_parsed_content("mask_loss"), grid=parser["loss"]["grid"])
    image = torch.rand(row.batch, 3, row.image_size, row.image_size, device=device)
    click, half = _click(row, device, objects), row.image_size // 2
    label = torch.zeros(row.batch, objects, row.image_size, row.image_size, device=device)
    label[:, :, half - half // 4 :, half - half // 4 :] = 1.0

    def step() -> None:
        optimizer.zero_grad()
        loss(clicks(image, *click, label), label).backward()
        optimizer.step()

    return step


def prepare_encode_image(row: Row, device: str) -> Call:
    """Build the encoding of one image: once per image, before the first click.

    Args:
        row: of the table.
        device: ``cpu`` or ``cuda``.
    """
    network = make_network(row).to(device).eval().requires_grad_(False)
    image = torch.rand(row.batch, 3, row.image_size, row.image_size, device=device)
    return torch.no_grad()(lambda: network.encode_image(image))


def prepare_decode(row: Row, device: str) -> Call:
    """Build the decoding of one object from one click: once per click.

    Args:
        row: of the table.
        device: ``cpu`` or ``cuda``.
    """
    network = make_network(row).to(device).eval().requires_grad_(False)
    grid = row.image_size // PATCH_SIZE
    embeddings = torch.randn(row.batch, 256, grid, grid, device=device)
    click, size = _click(row, device), (row.image_size, row.image_size)
    return torch.no_grad()(lambda: network.decode(embeddings, *click, size))


WORKS: dict[str, Callable[[Row, str], Call]] = {
    "training step": prepare_training_step,
    "training step, checkpointed": partial(prepare_training_step, checkpointed=True),
    FULL: partial(prepare_training_step, rounds=4, objects=4),
    f"{FULL}, checkpointed": partial(prepare_training_step, rounds=4, objects=4, checkpointed=True),
    COMPILED: partial(prepare_training_step, compiled=True),
    "encode_image": prepare_encode_image,
    "decode": prepare_decode,
}


def _click(row: Row, device: str, objects: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one foreground click in the middle of each image, for each object."""
    points = torch.full((row.batch, objects, 1, 2), row.image_size / 2, device=device)
    return points, torch.ones(row.batch, objects, 1, dtype=torch.long, device=device)


def measure_row(row: Row) -> dict[str, str | float]:
    """Measure one row, under the table's columns; runs in a process of its own."""
    torch.set_num_threads(row.threads)
    work = WORKS[row.work](row, row.device)
    before = start_memory(row.device)
    # warm up, and reach the peak: AdamW makes its state in the first step, and holds it in the second
    first = time_call(work, row.device)
    seconds = statistics.median(time_call(work, row.device) for _ in range(row.repeats))
    megabytes = (peak_memory(row.device) - before) / 1e6
    gflop = count_flop(row) / 1e9
    figures = {"ms": 1e3 * seconds, "MB": megabytes, "GFLOP": gflop, "GFLOP/s": gflop / seconds, "first s": first}
    return {"backbone": row.backbone, "image size": row.image_size, "work": row.work, "batch": row.batch, **figures}


def time_call(call: Callable[[], object], device: str) -> float:
    """Time one call in seconds; a GPU is waited for on both sides.

    Args:
        call: what is timed.
        device: ``cpu`` or ``cuda``.
    """
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def start_memory(device: str) -> int:
    """Forget the peak so far, and give the bytes in use."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    return _resident_bytes("VmRSS")


def peak_memory(device: str) -> int:
    """Return the most bytes that were in use at once."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident_bytes("VmHWM")


def _resident_bytes(name: str) -> int:
    """Read Linux's figure of memory in use or at its peak; elsewhere the peak stands for both."""
    if Path("/proc/self/status").exists():  # ru_maxrss would do, but it starts from the peak of the parent process
        return status_bytes("self", name)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def status_bytes(pid: int | str, name: str) -> int:
    """Return a figure of memory that Linux tells of a process; 0 of one that has ended.

    Args:
        pid: of the process, or ``"self"``.
        name: ``VmRSS`` is what is in use, ``VmHWM`` its peak.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def count_flop(row: Row) -> int:
    """Count a call's arithmetic; attention as two products, whatever kernel runs it."""
    device = "cpu" if row.work.startswith("training") else "meta"  # a simulated user needs data, the rest does not
    name = "training step" if row.work == COMPILED else row.work  # of compiled code nothing can be counted
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        WORKS[name](row, device)()
    return counter.get_total_flops()


def measure_matmul(threads: int, device: str) -> float:
    """Return the GFLOP per second of a float32 matrix product.

    Args:
        threads: of torch.
        device: ``cpu`` or ``cuda``.
    """
    torch.set_num_threads(threads)
    a, b = torch.randn(2, MATRIX_SIZE, MATRIX_SIZE, device=device)
    seconds = statistics.median(time_call(lambda: a @ b, device) for _ in range(MATRIX_REPEATS))
    return 2e-9 * MATRIX_SIZE**3 / seconds


def run_row(row: Row) -> dict[str, str | float]:
    """Measure one row in a fresh process, and tell of it on stderr.

    Raises:
        InputError: when the work fails or its process is killed, as for want of memory.
    """
    what = f"{row.work} of {row.backbone} at {row.image_size}, batch {row.batch}"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            result = pool.submit(measure_row, row).result()
        except RuntimeError as error:  # a killed process is one too
            why = f"no {what} ({str(error).splitlines()[0]})"
            raise InputError(f"{why}: give smaller --image-sizes or --batch-size") from error
    print(f"{what}: {result['ms']:.1f} ms; the first call took {result['first s']:.1f} s", file=sys.stderr)
    return result


def device_name(device: str) -> str:
    """Name the GPU, or the processor as well as the system knows it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: when a value cannot be measured.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", choices=[*SHORT_NAMES, *MODELS], default=list(SHORT_NAMES))
    parser.add_argument("--image-sizes", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=[name for name in WORKS if name != COMPILED])
    parser.add_argument("--batch-size", type=int, default=2, help="of the training step; the other two take one image")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls after one to warm up; the median counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="file to write the figures to as well")
    args = parser.parse_args(argv)
    for size in args.image_sizes:
        if size < PATCH_SIZE or size % PATCH_SIZE:
            raise InputError(f"--image-sizes are positive multiples of {PATCH_SIZE}, got {size}")
    for name in ("batch_size", "repeats", "threads"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is at least 1, got {getattr(args, name)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda needs a GPU that torch can use, and finds none: give --device cpu")
    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise InputError(f"--json {args.json} is a folder, or lies in one that does not exist: give a file")
    return args


def table(entries: list[dict[str, str | float]]) -> str:
    """Write the rows as Markdown."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS)]
    lines += [[format(entry[column], form) for column, form in COLUMNS.items()] for entry in entries]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; give its exit status."""
    try:
        args = parse_arguments(argv)
        common = {"repeats": args.repeats, "threads": args.threads, "device": args.device}
        rows = [
            Row(backbone, size, work, args.batch_size if work.startswith("training") else 1, **common)
            for backbone, size, work in product(args.backbones, args.image_sizes, args.works)
        ]
        before = measure_matmul(args.threads, args.device)
        results = [run_row(row) for row in rows]
        after = measure_matmul(args.threads, args.device)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    entries = [{**result, "share of matmul": 2 * float(result["GFLOP/s"]) / (before + after)} for result in results]
    report = {"torch": torch.__version__, "name": device_name(args.device), **common}
    print(
        f"torch {report['torch']}, {report['name']}, {args.threads} threads, median of {args.repeats}; "
        f"float32 matmul {before:.0f} GFLOP/s before the rows, {after:.0f} after\n\n{table(entries)}"
    )
    if args.json:
        report |= {"matmul GFLOP/s": [before, after], "rows": entries}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
