# SPDX-License-Identifier: Apache-2.0
"""A U-Net without prompts, as a baseline: trained on the same lists for as long, scored on the same images.

    python -m tools.unet --dataset_dir /data/mine --seconds 75

It finds all that is labelled on an image, which one prompt for each object does not: beside it stand scores of prompts,
and of the same without any. Prints its scores as JSON. The time is that of the processor, whatever runs beside it.
"""

import argparse
import json
import time
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

BATCH, LEARNING_RATE, TOLERANCE = 8, 1e-3, 2.0


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


def train(loader: DataLoader, seconds: float) -> tuple[UNet, int]:
    """Train for some seconds of the processor, and return the network and its steps.

    Args:
        loader: of training.
        seconds: of one thread.
    """
    network = UNet(2, 3, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    loss_function, steps, began = DiceCELoss(sigmoid=True), 0, time.process_time()
    while True:
        for batch in loader:
            spent = time.process_time() - began
            if spent > seconds:
                return network, steps
            for group in optimizer.param_groups:  # falls to zero at the end
                group["lr"] = LEARNING_RATE * (1 - spent / seconds)
            optimizer.zero_grad()
            loss_function(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
            steps += 1


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
    """Train, score, and print."""
    parser = argparse.ArgumentParser(prog="python -m tools.unet", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--images", type=int, default=24, help="of the validation list, the first ones")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache_dir", default=".cache")
    given = parser.parse_args(argv)
    set_determinism(given.seed)
    datalist = find_datalist(given.dataset_dir, given.cache_dir)
    both = ["image", "label"]
    flips = [RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in (0, 1)]
    resize = Resized(both, [given.image_size] * 2, mode=["bilinear", "nearest-exact"])
    more: list[Transform] = [resize, *flips, RandRotate90d(both, prob=0.5)]
    network, steps = train(make_loader(datalist["training"], given.cache_dir, more, BATCH, True), given.seconds)
    held_out = make_loader(datalist["validation"][: given.images], given.cache_dir, [], 1, False)
    found = score(network.eval(), held_out, given.image_size)
    print(json.dumps({**found, "steps": steps, "parameters": sum(p.numel() for p in network.parameters())}))


if __name__ == "__main__":
    main()
