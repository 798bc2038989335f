# SPDX-License-Identifier: Apache-2.0
"""Images as a team has them: volumes with flipped axes and flat voxels, grey and colour pictures."""

import numpy as np

from tests.files import write_nifti, write_picture

# voxels of 1 x 1 x 3 mm; x runs to the left and y to the front, as many scanners have it
FLIPPED = np.array([[-1.0, 0, 0, 40], [0, -1, 0, 30], [0, 0, 3, 33], [0, 0, 0, 1]])


def blob(shape, centre, radius, seed=0):
    """Give an image and its truth: a bright disc (in a volume a ball) on a textured ground."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    scale = np.array([1, 1, 3][: len(shape)]).reshape(-1, *[1] * len(shape))
    far = np.sqrt((((grid - np.reshape(centre, scale.shape)) * scale) ** 2).sum(0))
    truth = far <= radius
    noise = np.random.RandomState(seed).rand(*shape)
    return np.clip(60 + 110 * (1 / (1 + np.exp(far - radius))) + 20 * noise, 0, 255), truth


VOLUMES = {
    "vol_a": ((64, 56, 9), (26, 30, 4), 13, np.diag([1, 1, 3, 1])),
    "vol_b": ((56, 64, 8), (30, 24, 5), 12, FLIPPED),
}
PICTURES = {"grey.png": ((80, 64), (30, 34), 14), "photo.jpg": ((72, 90), (40, 50), 16)}


def make_studies(folder):
    """Write the images; give the truth of each by its id, in index order (X, Y[, Z])."""
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for name, (shape, centre, radius, affine) in VOLUMES.items():
        image, truths[name] = blob(shape, centre, radius)
        write_nifti(folder / f"{name}.nii.gz", image.astype(np.int16), affine)
    for name, (shape, centre, radius) in PICTURES.items():
        image, truth = blob(shape, centre, radius)
        rows = image.T.astype(np.uint8)
        write_picture(folder / name, np.stack([rows, rows // 2, rows // 3], 2) if name.endswith("jpg") else rows)
        truths[name.partition(".")[0]] = truth
    (folder / "broken.png").write_text("no picture")
    return truths


def make_lesions(folder, count, shape=(64, 64)):
    """Write pictures to train on; give the truth of each by its id, (X, Y)."""
    truths = {}
    for n in range(count):
        image, truth = blob(shape, (20 + 4 * (n % 5), 24 + 3 * (n % 6)), 9 + n % 4, seed=n)
        write_picture(folder / f"lesion_{n}.png", image.T.astype(np.uint8))
        truths[f"lesion_{n}"] = truth
    return truths
