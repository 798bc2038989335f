# SPDX-License-Identifier: Apache-2.0
"""Superpixels of real pictures as labels: objects of every kind of texture, of which nobody drew an outline.

After ScribblePrompt (Wong et al., 2024), which trains on superpixels (Felzenszwalb and Huttenlocher, "Efficient
Graph-Based Image Segmentation", 2004) beside labels.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import optional_import
from PIL import Image

from ..errors import InputError
from ..io.reading import LoadCheckedImaged
from ..transforms.intensity import ToRGB

felzenszwalb, has_skimage = optional_import("skimage.segmentation", name="felzenszwalb")
SIDE = 256  # of the picture that is looked at, at most
AREA = (0.0015, 0.4)  # of an object, as a share of the picture's
BORDER = 0.6  # sides of the picture that an object may cover, summed over the four


@dataclass(frozen=True)
class Superpixels:
    """The superpixels of a picture, in the place of its label's path: called, it gives what a reader would.

    Args:
        path: of the picture.
        seed: the same seed and path give the same superpixels.
    """

    path: str
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.path} (superpixels)"  # not the ending of a JPEG, whose values a reader would mend

    def __call__(self) -> MetaTensor:
        """Return the ids (1, X, Y) int32 of superpixels that are neither tiny nor background.

        Raises:
            InputError: when scikit-image is not installed, or the picture cannot be read.
        """
        if not has_skimage:
            raise InputError("superpixels need scikit-image: pip install scikit-image, or leave them out")
        image = LoadCheckedImaged("image")({"image": self.path})["image"]
        array = (255 * ToRGB()(image).permute(1, 2, 0)).round().to(torch.uint8).contiguous().numpy()
        picture = Image.fromarray(array)
        picture.thumbnail((SIDE, SIDE))
        ids = segment(np.asarray(picture), np.random.default_rng((self.seed, zlib.crc32(self.path.encode()))))
        ids = np.asarray(Image.fromarray(ids).resize(array.shape[1::-1], Image.Resampling.NEAREST))
        meta = {**image.meta, "filename_or_obj": str(self)}  # it lies where the picture does
        return MetaTensor(torch.from_numpy(ids[None].astype(np.int32)), meta=meta)


def segment(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the superpixels of a picture at a random scale.

    Args:
        picture: (H, W, 3) uint8.
        rng: source of random numbers.

    Returns:
        (H, W) uint16 ids, 0 for what is no object; at least one object.
    """
    area = picture.shape[0] * picture.shape[1]
    parts = felzenszwalb(
        picture,
        scale=math.exp(rng.uniform(math.log(60), math.log(1200))),
        sigma=rng.uniform(0.6, 2),
        min_size=int(area * rng.choice([0.001, 0.004, 0.01])),
    )
    areas = np.bincount(parts.ravel())
    borders = (parts[0], parts[-1], parts[:, 0], parts[:, -1])
    on_border = sum(np.bincount(border, minlength=len(areas)) / len(border) for border in borders)
    is_object = (AREA[0] * area < areas) & (areas < AREA[1] * area) & (on_border < BORDER)
    if not is_object.any():
        is_object[np.argmax(areas)] = True
    renumbered = np.where(is_object, np.cumsum(is_object), 0).astype(np.uint16)
    return renumbered[parts]
