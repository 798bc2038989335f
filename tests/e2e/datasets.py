# SPDX-License-Identifier: Apache-2.0
"""Tiny data sets in the layouts that the bundle reads: bright discs on a dark ground."""

import json

import numpy as np

from tests.data.fundus import make_refuge
from tests.files import write_nifti, write_picture

SIZE = 64


def disc(index, size=SIZE):
    """A mask (H, W) of a disc whose place and size depend on the index."""
    rng = np.random.default_rng(index)
    (x, y), radius = rng.uniform(0.35, 0.65, 2) * size, rng.uniform(0.12, 0.22) * size
    rows, columns = np.mgrid[:size, :size]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def picture(mask, index=0):
    """An RGB picture (H, W, 3) of a mask."""
    noise = np.random.default_rng(index).normal(0, 8, (*mask.shape, 3))
    return np.clip(60 + 120 * mask[..., None] + noise, 0, 255).astype(np.uint8)


def make_folder(root, count=8):
    """images/ and labels/ of PNG files."""
    for i in range(count):
        mask = disc(i)
        write_picture(root / "images" / f"case_{i}.png", picture(mask, i))
        write_picture(root / "labels" / f"case_{i}_mask.png", (255 * mask).astype(np.uint8))
    return root


def make_cells(root, count=4):
    """Labels with a nucleus (2) inside a cell (1)."""
    for i in range(count):
        cell, nucleus = disc(i), disc(i) & np.roll(disc(i), 9, axis=0)
        write_picture(root / "images" / f"cell_{i}.png", picture(cell, i))
        write_picture(root / "labels" / f"cell_{i}.png", cell.astype(np.uint8) + nucleus)
    return root


def make_isic(root, count=4):
    """The tables and folders of the ISIC challenge of 2016."""
    for split, first in (("Training", 0), ("Test", count)):
        rows = []
        for i in range(first, first + count):
            image = f"ISBI2016_ISIC_Part1_{split}_Data/ISIC_{i:07d}.jpg"
            label = f"ISBI2016_ISIC_Part1_{split}_GroundTruth/ISIC_{i:07d}_Segmentation.png"
            write_picture(root / image, picture(disc(i), i))
            write_picture(root / label, (255 * disc(i)).astype(np.uint8))
            rows.append(f"{i},{image},{label}")
        (root / f"ISBI2016_ISIC_Part1_{split}_GroundTruth.csv").write_text("\n".join([",img,seg", *rows]) + "\n")
    return root


def make_decathlon(root, count=3):
    """NIfTI volumes of four slices, of which the two in the middle hold an object, and their dataset.json."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    pairs = []
    for i in range(count):
        mask = np.zeros((48, 40, 4), np.uint8)
        mask[10:30, 8 : 24 + i, 1:3] = 1
        volume = (400.0 * mask + np.random.default_rng(i).normal(0, 20, mask.shape)).astype(np.int16)
        write_nifti(root / "imagesTr" / f"volume_{i}.nii.gz", volume)
        write_nifti(root / "labelsTr" / f"volume_{i}.nii.gz", mask)
        pairs.append({"image": f"./imagesTr/volume_{i}.nii.gz", "label": f"./labelsTr/volume_{i}.nii.gz"})
    (root / "dataset.json").write_text(json.dumps({"training": pairs}))
    return root


LAYOUTS = {
    "folder": make_folder,
    "isic": make_isic,
    "decathlon": make_decathlon,
    "refuge": make_refuge,
}  # by the name of their config
