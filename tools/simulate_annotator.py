# SPDX-License-Identifier: Apache-2.0
"""Segment the objects of a data set on the server of make serve as a user would, by clicks that correct.

    python -m tools.simulate_annotator --dataset_dir /data/mine --count 8 --keep /data/kept

Each object of the first images gets a click in its middle, and more, up to --clicks, where the answer is wrong, until
it has a Dice of --enough. What the server keeps can then be trained on, with the clicks as they were.
"""

import argparse
import os

import numpy as np
from monai.transforms import Compose
from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

from scripts.data import ObjectDataset, find_datalist
from scripts.prompts.corrections import correction_click
from scripts.prompts.form import FOREGROUND
from scripts.transforms import LoadCheckedImaged, ObjectMasksd, UprightSliced
from tools.benchmark_serve import serving


def annotate(client: nnInteractiveRemoteInferenceSession, truth: np.ndarray, clicks: int, enough: float) -> list[float]:
    """Click on an object of one slice until it is found.

    Args:
        client: with the image.
        truth: (H, W) bool, of the object.
        clicks: at most.
        enough: Dice with which the user is content.

    Returns:
        Dice after each click.
    """
    client.reset_interactions()
    scores: list[float] = []
    while len(scores) < clicks and (not scores or scores[-1] < enough):
        assert isinstance(client.target_buffer, np.ndarray)
        wanted = correction_click(client.target_buffer[0] > 0, truth)
        if wanted is None:
            break
        x, y = wanted.points[0].tolist()
        client.add_point_interaction([0, int(y), int(x)], bool(wanted.labels[0] == FOREGROUND))
        mask = client.target_buffer[0] > 0
        scores.append(float(2 * (mask & truth).sum() / (mask.sum() + truth.sum())))
    return scores


def main(argv: list[str] | None = None) -> None:
    """Start the server, annotate, and print what each object took."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulate_annotator", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--keep", required=True, help="folder that keeps the objects")
    parser.add_argument("--count", type=int, default=8, help="images of the training list, the first ones")
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--enough", type=float, default=0.95)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--cache_dir", default=".cache")
    given = parser.parse_args(argv)
    pairs = find_datalist(given.dataset_dir, given.cache_dir)["training"][: given.count]
    load = [LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True), UprightSliced(), ObjectMasksd()]
    items = ObjectDataset(pairs, Compose(load), objects_per_item=None, cache_dir=given.cache_dir)
    with serving(os.cpu_count() or 1, "--keep", given.keep, "--backend", given.backend) as (url, _):
        with nnInteractiveRemoteInferenceSession(url) as client:
            for item in items:
                client.set_image(item["image"].numpy()[:, None])
                client.set_target_buffer(np.zeros((1, *item["image"].shape[1:]), np.uint8))
                for mask in item["label"].numpy() > 0.5:
                    scores = annotate(client, mask, given.clicks, given.enough)
                    print(f"{item['case']}: {', '.join(f'{each:.2f}' for each in scores)}", flush=True)


if __name__ == "__main__":
    main()
