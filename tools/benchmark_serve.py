# SPDX-License-Identifier: Apache-2.0
"""Time clicks on the server of make serve by the official client, alone and of eight clients at once.

    python -m tools.benchmark_serve --images 60,128,128 120,512,512 1,2048,2048 --backend openvino --threads 2
    python -m tools.benchmark_serve --clients 8 --threads 2

Beside the clicks stand the times of the encoder and the decoder alone, in the same run. Images are made: noise, and
in it a bright tilted tube through all slices but two at each end. Each figure of a single client is the median of
five.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

from apps.common.weights import Served, find_weights
from scripts.export import choose_backend
from tools.benchmark import device_name, time_call

ROOT = Path(__file__).parents[1]
COLUMNS = ("image", "set image", "first click", "second click", "whole object", "slices", "Dice")
CLICKS = 50  # of each of several clients
REPEATS = 5


@contextlib.contextmanager
def serving(threads: int, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """Start the server, and stop it afterwards.

    Args:
        threads: of the processor.
        options: of its command line.

    Returns:
        Its address, and its process.
    """
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(str(free.getsockname()[1]))
    command = [sys.executable, "-m", "apps.serve", "--port", ports[0], "--itksnap-port", ports[1], *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith("How each works"):
                break
        else:
            raise SystemExit("error: the server did not start")
        yield f"http://127.0.0.1:{ports[0]}", psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(20)


def make_image(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (slices, rows, columns) int16 and where its object is.

    Args:
        shape: of the image.
        seed: of the noise, and of where the object is.
    """
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    middle = shape[2] * (0.5 + rng.uniform(-0.1, 0.1) + 0.2 * (z / shape[0] - 0.5))
    tube = ((x - middle) / (0.2 * shape[2])) ** 2 + ((y - shape[1] / 2) / (0.15 * shape[1])) ** 2 < 1
    if shape[0] > 4:
        tube = tube & (z >= 2) & (z < shape[0] - 2)
    return rng.integers(50, 70, shape, dtype=np.int16) + 120 * tube.astype(np.int16), tube


def measure_network(backend: str, threads: int) -> str:
    """Time what the server runs for a first click and for each one, without the server; return a sentence.

    Args:
        backend: as the server is told.
        threads: of the processor.
    """
    torch.set_num_threads(threads)
    network = Served(choose_backend(backend, "cpu")).use(find_weights(None), "cpu").network
    size, image = (network.image_size,) * 2, torch.rand(1, 3, network.image_size, network.image_size)
    points, mask = torch.tensor([[[[9.0, 9.0], [12.0, 9.0]]]]), torch.randn(1, 1, 1, *(network.mask_size,) * 2)
    labels = torch.ones(1, 1, 2, dtype=torch.long)
    with torch.inference_mode():
        embeddings = network.encode_image(image)
        works = {
            "encoder": lambda: network.encode_image(image),
            "decoder": lambda: network.decode_best(embeddings, points, labels, size, mask),
        }
        found = {}
        for name, work in works.items():
            seconds = []
            for _ in range(10 * REPEATS):
                time.sleep(0.02)  # clicks come with pauses, in which threads fall asleep
                seconds.append(time_call(work, "cpu"))
            found[name] = statistics.median(seconds)
    return "; ".join(f"{name} alone {1000 * seconds:.1f} ms" for name, seconds in found.items())


def begin(client: nnInteractiveRemoteInferenceSession, image: np.ndarray) -> None:
    """Send an image.

    Args:
        client: that sends it.
        image: (slices, rows, columns).
    """
    client.set_image(image[None], {"spacing": [2.0, 1.0, 1.0]})
    client.set_target_buffer(np.zeros(image.shape, np.uint8))


def middle_of(tube: np.ndarray, k: int) -> list[int]:
    """Return a pixel in the middle of an object on a slice.

    Args:
        tube: (slices, rows, columns) bool, of the object.
        k: the slice.
    """
    rows, columns = np.nonzero(tube[k])
    return [k, int(rows.mean()), int(columns.mean())]


def measure(url: str, shape: tuple[int, ...]) -> dict[str, str]:
    """Click on images of a shape, alone; return a row of the table.

    Args:
        url: of the server.
        shape: slices, rows and columns.
    """
    found: dict[str, list[float]] = {name: [] for name in COLUMNS[1:]}

    def timed(name: str, ask: object) -> None:
        start = time.perf_counter()
        ask()  # type: ignore[operator]
        found[name].append(1000 * (time.perf_counter() - start))

    with nnInteractiveRemoteInferenceSession(url) as client:
        for repeat in range(REPEATS):
            image, tube = make_image(shape, repeat)
            k, is_volume = shape[0] // 2, shape[0] > 1
            timed("set image", lambda image=image: begin(client, image))
            time.sleep(3)  # a reader looks first
            client.set_do_autozoom(False)
            place = middle_of(tube, k)
            timed("first click", lambda place=place: client.add_point_interaction(place, True))
            place[2] += 3
            timed("second click", lambda place=place: client.add_point_interaction(place, True))
            if is_volume and repeat < 2:
                client.reset_interactions()
                client.set_do_autozoom(True)
                timed("whole object", lambda place=place: client.add_point_interaction(place, True))
                mask = client.target_buffer > 0
                found["slices"].append(float(mask.any((1, 2)).sum()))
                found["Dice"].append(float(2 * (mask & tube).sum() / (mask.sum() + tube.sum())))
    row = {"image": " x ".join(map(str, shape))}
    for name, values in found.items():
        middle = statistics.median(values) if values else None
        row[name] = "" if middle is None else f"{middle:.3f}" if name == "Dice" else f"{middle:.0f}"
    return row


def click_through(url: str, seed: int) -> tuple[list[np.ndarray], list[float]]:
    """Click as one of several clients; return the masks, and the seconds of each click.

    Args:
        url: of the server.
        seed: of the client.
    """
    rng, masks, seconds = np.random.default_rng(seed), [], []
    image, tube = make_image((24, 160, 160), seed)
    with nnInteractiveRemoteInferenceSession(url) as client:
        begin(client, image)
        for turn in range(CLICKS):
            client.set_do_autozoom(turn % 10 == 9)
            if turn % 5 == 0:
                client.reset_interactions()
            start = time.perf_counter()
            client.add_point_interaction(middle_of(tube, int(rng.integers(2, 22))), True)
            seconds.append(time.perf_counter() - start)
            masks.append(client.target_buffer.copy())
    return masks, seconds


def measure_clients(url: str, server: psutil.Process, count: int) -> list[str]:
    """Let clients click one after the other, then all at once; return what came of it.

    Args:
        url: of the server.
        server: its process.
        count: of clients.
    """
    alone = [click_through(url, seed) for seed in range(count)]
    before, start = server.memory_info().rss, time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        together = list(pool.map(lambda seed: click_through(url, seed), range(count)))
    lasted, after = time.perf_counter() - start, server.memory_info().rss
    wrong = sum(
        not np.array_equal(one, other) for a, b in zip(alone, together) for one, other in zip(a[0], b[0], strict=True)
    )
    figures = [np.concatenate([seconds for _, seconds in runs]) for runs in (alone, together)]
    p50, p95 = (([float(np.percentile(each, q)) for each in figures]) for q in (50, 95))
    return [
        f"{count} clients, {count * CLICKS} clicks, one in ten follows the object through 24 slices",
        f"answers that differ from those of a client alone: {wrong}",
        f"p50, p95 alone: {p50[0]:.2f}, {p95[0]:.2f} s; together: {p50[1]:.2f}, {p95[1]:.2f} s",
        f"answers a second: {count * CLICKS / lasted:.1f}",
        f"memory before, after: {before / 2**20:.0f}, {after / 2**20:.0f} MiB",
    ]


def main(argv: list[str] | None = None) -> None:
    """Start the server and print a table, or what several clients get."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark_serve", description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", default=["60,128,128"], metavar="SLICES,ROWS,COLUMNS")
    parser.add_argument("--clients", type=int, default=0, help="time so many clients at once instead")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(argv)
    print(f"{device_name('cpu')}, {given.threads} threads, backend {given.backend}")
    print(f"{measure_network(given.backend, given.threads)}\n")
    with serving(given.threads, "--backend", given.backend, "--most-sessions", "64") as (url, server):
        if given.clients:
            print("\n".join(measure_clients(url, server, given.clients)))
            return
        heads = [f"{name}, ms" if name in COLUMNS[1:5] else name for name in COLUMNS]
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for shape in given.images:
            row = measure(url, tuple(int(side) for side in shape.split(",")))
            print(f"| {' | '.join(row[name] for name in COLUMNS)} |", flush=True)


if __name__ == "__main__":
    main()
