# SPDX-License-Identifier: Apache-2.0
"""What several readers at once cost: eight clients click on eight pictures and two volumes, with two sets of weights.

    python -m tests.label.load FOLDER

Each of the 400 answers is held against the one that a client alone gets. Prints a line for each figure.
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch

from scripts.networks import Settings, build_network, load_weights
from tests.files import write_nifti
from tests.label.server import Server, copy_bundle, require_environment
from tests.label.studies import blob, make_lesions

CLIENTS, EACH = 8, 50
SHAPE = (256, 256, 64)


def make(folder):
    """Write the studies, and weights of another size; give the server."""
    make_lesions(folder / "studies", 8, (256, 256))
    for n in range(2):
        image, _ = blob(SHAPE, (100 + 30 * n, 120, 30), 40, seed=n)
        write_nifti(folder / "studies" / f"volume_{n}.nii.gz", image.astype(np.int16), np.diag([1, 1, 3, 1]))
    root = copy_bundle(folder)
    settings = Settings(image_size=128, trained_on="these")
    network = load_weights(build_network(settings), root / "models" / "efficient_sam_vitt_base.pth")
    torch.save({"model": network.state_dict(), "settings": settings.state_dict()}, root / "models" / "model.pt")
    return Server(root, str(folder / "studies"))


def requests():
    """List what is asked: each reader has an image of its own for five clicks, with one set of weights or the other."""
    random = np.random.RandomState(0)
    asked = []
    for n in range(CLIENTS * EACH):
        which = (n // 5 + n % CLIENTS) % 10
        weights = ("best", "efficient_sam_vitt_base.pth")[n % 2]
        x, y = (int(v) for v in random.randint(20, 60, 2))
        if which < 8:
            asked.append((f"lesion_{which}", [x, y, 0], weights))
        else:
            asked.append((f"volume_{which - 8}", [80 + x, 80 + y, int(random.randint(24, 36))], weights))
    return asked


def timed(server, one):
    """Ask once; give the mask and the seconds."""
    image, click, weights = one
    start = time.perf_counter()
    mask, _, _ = server.infer(image, foreground=[click], slice=click[2], model_filename=weights)
    return mask, time.perf_counter() - start


def main(folder):
    """Run the load, and print what came of it."""
    require_environment()
    server = make(folder).start()
    try:
        asked = requests()
        process = psutil.Process(server.process.pid)
        alone = [timed(server, one) for one in asked]
        memory, cpu = process.memory_info().rss, sum(process.cpu_times()[:2])
        waits, done = [], threading.Event()

        def watch():
            while not done.is_set():
                start = time.perf_counter()
                server.status("/info/")
                waits.append(time.perf_counter() - start)
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            together = list(pool.map(lambda one: timed(server, one), asked))
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        differ = sum(not np.array_equal(a, b) for (a, _), (b, _) in zip(alone, together))
        print(f"answers that differ: {differ} of {len(asked)}; {sum(m.any() for m, _ in alone)} are not empty")
        for name, times in (("alone", alone), ("together", together)):
            taken = [s for _, s in times]
            print(f"{name}: p50 {np.quantile(taken, 0.5):.2f} s, p95 {np.quantile(taken, 0.95):.2f} s")
        print(f"together: {len(asked) / seconds:.2f} answers a second")
        print(f"CPU: {(sum(process.cpu_times()[:2]) - cpu) / len(asked):.2f} s a click")
        print(f"memory: {memory / 1e6:.0f} -> {process.memory_info().rss / 1e6:.0f} MB")
        print(f"/info/ meanwhile: median {np.median(waits):.2f} s, longest {max(waits):.2f} s")
    finally:
        server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
