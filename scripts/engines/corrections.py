# SPDX-License-Identifier: Apache-2.0
"""The next click of a user who looks at a prediction: in the largest region that is wrong.

As in "Reviving Iterative Training with Mask Guidance" (Sofiiuk et al., 2021) and SAM (Kirillov et al., 2023,
appendix A).
"""

import numpy as np
from scipy import ndimage

from ..prompts import BACKGROUND, FOREGROUND, Prompt


def correction_click(
    prediction: np.ndarray, target: np.ndarray, rng: np.random.RandomState | None = None
) -> Prompt | None:
    """Click in the largest connected region where a prediction is wrong.

    Args:
        prediction: (H, W) bool.
        target: (H, W) bool.
        rng: draws any pixel of the region; without, it is the innermost one, farthest from the region's edge and the
            image's, the first of equals.

    Returns:
        One point (1, 2), (x, y), with label 1 where the object was missed and 0 where something else was taken for it,
        or None when nothing is wrong.
    """
    largest, wrong, label = 0, None, FOREGROUND
    for errors, kind in ((target & ~prediction, FOREGROUND), (prediction & ~target, BACKGROUND)):
        regions, _ = ndimage.label(errors)
        sizes = np.bincount(regions.ravel())
        sizes[0] = 0
        if sizes.max() > largest:
            largest, wrong, label = sizes.max(), regions == sizes.argmax(), kind
    if wrong is None:
        return None
    if rng is not None:
        pixels = np.flatnonzero(wrong)
        y, x = np.unravel_index(pixels[rng.randint(len(pixels))], wrong.shape)
        return Prompt(np.array([[x, y]], np.float32), np.array([label]))
    rows, columns = (slice(*(np.flatnonzero(wrong.any(axis))[[0, -1]] + (0, 1))) for axis in (1, 0))
    depth = ndimage.distance_transform_edt(np.pad(wrong[rows, columns], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return Prompt(np.array([[x + columns.start, y + rows.start]], np.float32), np.array([label]))
