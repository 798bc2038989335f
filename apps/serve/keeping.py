# SPDX-License-Identifier: Apache-2.0
"""Keep what users segment, to train on: a folder of the Medical Segmentation Decathlon's layout that grows."""

import gzip
import hashlib
import json
import logging
import os
from pathlib import Path
from threading import Lock

import nibabel
import numpy as np
from PIL import Image

from scripts.errors import InputError
from scripts.io.whole_files import written_whole

from .annotation import Annotation
from .interactions import prompt_on

LIST = "dataset.json"
SAME_IOU = 0.7  # of two masks of an image: the later one is of the same object, begun again or gone on with

logger = logging.getLogger(__name__)


class Keeper:
    """Write down the image, the mask and the prompts of each object that a user has finished.

    An object is finished when its client goes on to another object or image, or leaves. One that overlaps an object
    that was kept of the same image takes its place. Slices lie last in the files, as they were prompted; clients say
    nothing of where an image lies in the patient, so that files keep its spacing alone.

    Args:
        folder: which is made where it is not there.

    Raises:
        InputError: when it cannot be written to, or has a list that is not of this kind.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.lock = Lock()
        try:
            for name in ("images", "labels"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self.items: list[dict] = self.read()
            self.write()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.folder} cannot keep what is segmented: {error}") from error

    def read(self) -> list[dict]:
        """Read what was kept before."""
        path = self.folder / LIST
        return list(json.loads(path.read_text())["training"]) if path.is_file() else []

    def write(self) -> None:
        """Write the list, which is whole at any time."""
        content = {"name": "kept", "labels": {"0": "background", "1": "object"}, "training": self.items}
        with written_whole(self.folder / LIST) as path, open(path, "w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    def __call__(self, annotation: Annotation) -> None:
        """Keep the object that a client has finished; one without a prompt or a mask is none.

        Args:
            annotation: of the client.
        """
        mask, axis = annotation.mask, annotation.state.axis
        prompts = [
            [*point, k, int(label)]
            for k in sorted({k for each in annotation.state.interactions for k in each.slices(axis)})
            for point, label in zip(*(part.tolist() for part in prompt_on(annotation.state.interactions, axis, k)))
        ]
        if not mask.any() or not prompts:
            return
        try:
            with self.lock:
                self.keep(annotation, mask, axis, prompts)
        except OSError as error:  # a full disk: the user goes on, and knows
            logger.error(f"an object was not kept in {self.folder}: {error}")

    def keep(self, annotation: Annotation, mask: np.ndarray, axis: int, prompts: list) -> None:
        """Write an object down.

        Args:
            annotation: of the client.
            mask: (A, B, D), of the object.
            axis: across which its slices lie.
            prompts: (x, y, slice, label) each.
        """
        image = annotation.image.prepared.result()[0].numpy()
        order = [*(other for other in (2, 1, 0) if other != axis), axis]  # to (X, Y, Z)
        volume, label = image.transpose(0, *(1 + each for each in order)), mask.transpose(order)
        digest = hashlib.sha256(np.ascontiguousarray(volume).data).hexdigest()[:16]
        spacing = [annotation.image.spacing[each] for each in order]
        picture = as_picture(volume)
        suffix = ".nii.gz" if picture is None else ".png"
        path = self.folder / "images" / f"{digest}{suffix}"
        if not path.is_file():
            save(path, volume[0] if picture is None else picture, spacing)
        earlier = [item for item in self.items if item["image"] == f"images/{path.name}"]
        replaced = [item for item in earlier if overlap(read_mask(self.folder / item["label"]), label) > SAME_IOU]
        taken = {item["label"] for item in earlier}
        name = next(name for n in range(len(taken) + 1) if (name := f"labels/{digest}_{n + 1}{suffix}") not in taken)
        save(self.folder / name, label if picture is None else label[..., 0].T, spacing)
        self.items = [item for item in self.items if item not in replaced]
        self.items.append({"image": f"images/{path.name}", "label": name, "prompts": prompts})
        self.write()
        for item in replaced:
            (self.folder / item["label"]).unlink(missing_ok=True)
        logger.warning(f"kept: {self.folder / name}" + (", in the place of an earlier one" if replaced else ""))


def as_picture(volume: np.ndarray) -> np.ndarray | None:
    """Return an image of one slice as a picture of bytes, (H, W) or (H, W, 3); None where it is none.

    Args:
        volume: (C, X, Y, Z).
    """
    if volume.shape[3] > 1 or (len(volume) == 1 and volume.dtype != np.uint8):
        return None
    values = volume[..., 0].astype(np.float32)
    if volume.dtype != np.uint8:  # colours as numbers of another type
        low, high = values.min(), values.max()
        values = values if low >= 0 and high <= 255 else 255 * (values - low) / max(high - low, 1e-6)
    upright = values.transpose(2, 1, 0).round().astype(np.uint8)
    return upright[..., 0] if upright.shape[2] == 1 else upright


def save(path: Path, array: np.ndarray, spacing: list[float]) -> None:
    """Write a picture, or a volume as NIfTI.

    Args:
        path: of the file.
        array: (H, W[, 3]) of a picture, else (X, Y, Z).
        spacing: of the three axes, in millimetres.
    """
    with written_whole(path) as unfinished, open(unfinished, "wb") as file:
        if path.suffix == ".png":
            Image.fromarray(array).save(file, "PNG")
        else:
            array = array.astype(np.float32) if array.dtype in (np.int64, np.float16) else array
            nifti = nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]), dtype=array.dtype)
            nifti.header.set_xyzt_units("mm")
            file.write(gzip.compress(nifti.to_bytes(), 1))
        file.flush()
        os.fsync(file.fileno())


def read_mask(path: Path) -> np.ndarray:
    """Read a mask that was kept, (X, Y, Z)."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path)).T[..., None]
    return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the IoU of two masks of the same size; 0 where they are of different ones.

    Args:
        one: (X, Y, Z).
        other: likewise.
    """
    if one.shape != other.shape:
        return 0.0
    return float(np.logical_and(one, other).sum() / max(np.logical_or(one, other).sum(), 1))
