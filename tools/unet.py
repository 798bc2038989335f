# SPDX-License-Identifier: Apache-2.0
"""A U-Net without prompts, as a baseline: trained on the same lists for as long, scored on the same images.

    python -m tools.unet --dataset_dir /data/mine --steps 200

It finds all that is labelled on an image, which one prompt for each object does not: beside it stand scores of prompts,
and of the same without any. Prints its scores as JSON.
"""

import argparse
import json
from collections.abc import Callable
from itertools import count, islice
from typing import Any

import torch
from monai.data import DataLoader
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric, MeanIoU, SurfaceDiceMetric
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureTyped, Lambdad, RandFlipd, RandRotate90d, Resized, Transform
from monai.utils import set_determinism
from torch.nn import functional as F

from scripts.data import ObjectDataset, find_datalist
from scripts.transforms import LoadCheckedImaged, ObjectMasksd, ToRGBd, UprightSliced
from tools.step_costs import MEASURED_IMAGES, PASSES, costs_of

BATCH, LEARNING_RATE, TOLERANCE = 8, 1e-3, 2.0


def make_network() -> UNet:
    """Make a U-Net of 1.6 M parameters."""
    return UNet(2, 3, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)


def make_loader(pairs: list, cache_dir: str, more: list[Transform], batch: int, shuffle: bool) -> DataLoader:
    """Load slices with the mask of all that is labelled.

    Args:
        pairs: of images and labels.
        cache_dir: where the index of objects is kept.
        more: transforms of image and mask.
        batch: images of a batch.
        shuffle: whether they come in a random order.
    """
    whole = Lambdad("label", func=lambda masks: (masks > 0.5).any(0, keepdim=True).float())
    load = [LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True), UprightSliced(), ToRGBd("image")]
    tensors = EnsureTyped(["image", "label"], track_meta=False)
    transform = Compose([*load, ObjectMasksd(), whole, *more, tensors])
    dataset = ObjectDataset(pairs, transform, objects_per_item=None, cache_dir=cache_dir)
    return DataLoader(dataset, batch_size=batch, shuffle=shuffle, num_workers=0)


def train(loader: DataLoader, steps: int, note: Callable[[], None] = lambda: None) -> UNet:
    """Train for some steps, and return the network.

    Args:
        loader: of training.
        steps: of the optimiser.
        note: is called after each.
    """
    network = make_network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    loss_function = DiceCELoss(sigmoid=True)
    batches = (batch for _ in count() for batch in loader)
    for batch in islice(batches, steps):
        optimizer.zero_grad()
        loss_function(network(batch["image"]), batch["label"]).backward()
        optimizer.step()
        schedule.step()
        note()
    return network


@torch.no_grad()
def score(network: UNet, loader: DataLoader, size: int) -> dict[str, float]:
    """Score masks on the images' own grid.

    Args:
        network: trained.
        loader: of validation, one image at a time.
        size: side of the network's square in pixels.
    """
    metrics: dict[str, Any] = {"dice": DiceMetric(), "iou": MeanIoU(), "nsd": SurfaceDiceMetric([TOLERANCE])}
    for batch in loader:
        small = F.interpolate(batch["image"], (size, size), mode="bilinear", antialias=True)
        found = F.interpolate(network(small), batch["label"].shape[-2:], mode="bilinear") > 0
        for name, metric in metrics.items():
            pair = found.float(), batch["label"]
            metric(*(torch.cat([1 - each, each], 1) for each in pair) if name == "nsd" else pair)
    return {name: float(metric.aggregate()) for name, metric in metrics.items()}


def main(argv: list[str] | None = None) -> None:
    """Train, score, and print; or print what a step costs."""
    parser = argparse.ArgumentParser(prog="python -m tools.unet", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=24, help="of the validation list, the first ones")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache_dir", default=".cache")
    parser.add_argument("--costs_alone", action="store_true", help="measure steps, and score nothing")
    given = parser.parse_args(argv)
    set_determinism(given.seed)
    datalist = find_datalist(given.dataset_dir, given.cache_dir)
    both = ["image", "label"]
    flips = [RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in (0, 1)]
    resize = Resized(both, [given.image_size] * 2, mode=["bilinear", "nearest-exact"])
    more: list[Transform] = [resize, *flips, RandRotate90d(both, prob=0.5)]
    pairs = datalist["training"][: MEASURED_IMAGES if given.costs_alone else None]
    loader = make_loader(pairs, given.cache_dir, more, BATCH, True)
    if given.costs_alone:
        found = costs_of(lambda note: train(loader, PASSES * len(loader), note), len(loader))
        trained = sum(p.numel() for p in make_network().parameters())
        print(json.dumps(found | {"trained": trained, "threads": torch.get_num_threads(), "views": 0}))
        return
    network = train(loader, given.steps)
    held_out = make_loader(datalist["validation"][: given.images], given.cache_dir, [], 1, False)
    found = score(network.eval(), held_out, given.image_size)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
