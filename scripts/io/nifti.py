# SPDX-License-Identifier: Apache-2.0
"""NIfTI: read in every shape that programs write, and written where its source lies."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import NibabelReader
from monai.utils import optional_import
from nibabel import Nifti1Header, Nifti1Image

from ..errors import InputError


class NiftiReader(NibabelReader):
    """Read NIfTI of either byte order.

    Axes of one, which FSL and ITK append, are left out; RGB voxels become channels. A file that does not say where it
    lies (neither sform nor qform) lies where ITK has it, and so every viewer: at the origin, its axes those of LPS.
    nibabel would centre it.
    """

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        shape = img.shape
        if len(shape) == 4 and shape[2] > 1 and shape[3] > 1:
            raise InputError(f"{img.get_filename()} has {shape[3]} volumes: give one of them")
        array, meta = super().get_data(img)
        if len(shape) > 3 and set(shape[3:]) == {1}:
            array = array.reshape(shape[:3])
            meta["spatial_shape"] = np.asarray(shape[:3])
            meta["original_channel_dim"] = float("nan")
        return array.astype(array.dtype.newbyteorder("="), copy=False), meta

    def _get_array_data(self, img: Any, *args: Any) -> np.ndarray:
        array = super()._get_array_data(img, *args)
        if array.dtype.names:  # RGB, RGBA
            array = np.stack([array[name] for name in array.dtype.names], -1)
        return array

    def _get_affine(self, img: Any) -> np.ndarray:
        header = img.header
        if isinstance(header, Nifti1Header) and not (header["sform_code"] or header["qform_code"]):
            return np.diag([*(np.array([-1, -1, 1]) * header["pixdim"][1:4]), 1.0])
        return np.asarray(super()._get_affine(img))


def is_nifti(path: Path) -> bool:
    """Return whether a file is a NIfTI by its name."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def save_like(path: Path, array: np.ndarray, source: Path) -> None:
    """Write voxels as NIfTI where a source lies: with both of its forms, their codes, and its units.

    Args:
        path: of the file.
        array: (X, Y[, Z[, Q]]), of the source's voxels.
        source: a NIfTI.
    """
    image: Any = nibabel.load(source)
    header = image.header.copy()
    header.set_data_dtype(array.dtype)
    for name in ("scl_slope", "scl_inter", "cal_min", "cal_max"):
        header[name] = 0
    kind = type(image) if isinstance(image, Nifti1Image) else Nifti1Image
    nibabel.save(kind(array, None, header), path)


def affine_in_itk(path: Path) -> np.ndarray | None:
    """Return where ITK, and so 3D Slicer and ITK-SNAP, has a NIfTI: by one of its forms, which nibabel may not choose.

    Args:
        path: of the file.

    Returns:
        (4, 4), from an index to RAS in mm; nothing where ITK cannot read the file, such as one with a shear.
    """
    itk, _ = optional_import("itk")
    try:
        reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    except (RuntimeError, AttributeError):
        return None
    if reader.GetNumberOfDimensions() < 3:
        return None
    columns = np.array([np.asarray(reader.GetDirection(i))[:3] * reader.GetSpacing(i) for i in range(3)])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns.T, [reader.GetOrigin(i) for i in range(3)]
    return np.diag([-1.0, -1, 1, 1]) @ affine
