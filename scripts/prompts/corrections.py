# SPDX-License-Identifier: Apache-2.0
"""The next click of a user who looks at a prediction: in the largest region that is wrong.

As in "Reviving Iterative Training with Mask Guidance" (Sofiiuk et al., 2021) and SAM (Kirillov et al., 2023,
appendix A).
"""

import numpy as np
from scipy import ndimage

from .crops import mask_window
from .form import BACKGROUND, FOREGROUND, Prompt


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
    differs = prediction != target
    window = mask_window(differs)
    if window is None:
        return None
    # all else happens where there are errors: an image may be large and its objects small
    prediction, target = prediction[window], target[window]
    largest, wrong, label = 0, differs[window], FOREGROUND
    for errors, kind in ((target & ~prediction, FOREGROUND), (prediction & ~target, BACKGROUND)):
        regions, _ = ndimage.label(errors)
        sizes = np.bincount(regions.ravel())
        sizes[0] = 0
        if sizes.max() > largest:
            largest, wrong, label = sizes.max(), regions == sizes.argmax(), kind
    if rng is not None:
        pixels = np.flatnonzero(wrong)
        y, x = np.unravel_index(pixels[rng.randint(len(pixels))], wrong.shape)
    else:
        rows, columns = mask_window(wrong) or (slice(0), slice(0))
        depth = ndimage.distance_transform_edt(np.pad(wrong[rows, columns], 1))[1:-1, 1:-1]
        y, x = np.add(np.unravel_index(depth.argmax(), depth.shape), (rows.start, columns.start))
    return Prompt(np.array([[x + window[1].start, y + window[0].start]], np.float32), np.array([label]))
