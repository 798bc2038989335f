# SPDX-License-Identifier: Apache-2.0
"""A DICOM series held against what a volume is: parallel slices of one size, each at its own place, evenly apart."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from ..errors import InputError

logger = logging.getLogger(__name__)

UNEVEN = 0.1  # of the usual step between slices, by which one may differ
PARALLEL = np.cos(np.radians(0.5))
TILTED = np.cos(np.radians(1.0))
TAGS = (
    *("Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient"),
    *("RescaleSlope", "RescaleIntercept", "PixelPaddingValue"),
)
FRAMES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


@dataclass(frozen=True)
class Series:
    """What the headers of a series tell beside its voxels."""

    files: list[str]  # in the order of their places
    slopes_differ: bool
    padding: float | None  # value of what is no image, as it is read


def check_series(folder: Path, files: Sequence[Path]) -> Series:
    """Refuse a series that would be read as another volume than it is; say what a volume cannot hold.

    Args:
        folder: or file, to be named.
        files: of the series.

    Raises:
        InputError: when slices differ in size or direction, lie at one place, or not evenly.
    """
    headers = [
        pydicom.dcmread(file, specific_tags=[*TAGS, *FRAMES], stop_before_pixels=True, force=True) for file in files
    ]
    heights: np.ndarray | None = None
    if len(headers) == 1:
        check_frames(folder, headers[0])
    else:
        sizes = {(header.get("Columns"), header.get("Rows")) for header in headers}
        if len(sizes) > 1:
            shown = ", ".join(f"{x} x {y}" for x, y in sorted(sizes, key=str))
            raise InputError(
                f"{folder} has slices of several sizes ({shown}): put those of each into a folder of its own"
            )
        places = [(each.ImageOrientationPatient, each.ImagePositionPatient) for each in headers if placed(each)]
        heights = check_places(folder, places, len(files))
    slopes = {float(header.get("RescaleSlope") or 1) for header in headers}
    padding = headers[0].get("PixelPaddingValue")
    if isinstance(padding, int):
        padding = padding * float(headers[0].get("RescaleSlope") or 1) + float(headers[0].get("RescaleIntercept") or 0)
    order = range(len(files)) if heights is None else np.argsort(heights)
    return Series([str(files[n]) for n in order], len(slopes) > 1, padding if isinstance(padding, float) else None)


def placed(header: pydicom.Dataset) -> bool:
    """Return whether a header says where its slice lies."""
    return bool(header.get("ImageOrientationPatient")) and bool(header.get("ImagePositionPatient"))


def check_frames(path: Path, header: pydicom.Dataset) -> None:
    """Refuse a file of several frames that are not stored in the order of their places.

    Args:
        path: of the file.
        header: of the file.
    """
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    places = []
    for frame in frames:
        at = (frame.get("PlanePositionSequence") or shared.get("PlanePositionSequence") or [{}])[0]
        turned = (frame.get("PlaneOrientationSequence") or shared.get("PlaneOrientationSequence") or [{}])[0]
        if placed_ := (turned.get("ImageOrientationPatient"), at.get("ImagePositionPatient")):
            if None not in placed_:
                places.append(placed_)
    heights = check_places(path, places, len(frames))
    if heights is not None and not (np.all(np.diff(heights) > 0) or np.all(np.diff(heights) < 0)):
        raise InputError(f"{path} has its frames in another order than their places: convert it to NIfTI, by dcm2niix")


def check_places(path: Path, places: Sequence[tuple[Any, Any]], count: int) -> np.ndarray | None:
    """Refuse slices that are no volume, and name a gantry tilt.

    Args:
        path: to be named.
        places: direction cosines (6) and position (3) of each slice, in mm.
        count: of the slices, of which some may say nothing.

    Returns:
        Their heights along the normal, in mm, in the given order; nothing where there are not two.

    Raises:
        InputError: when they are not parallel, at one place, or not evenly apart.
    """
    if count < 2 or not places:
        return None
    if len(places) < count:
        raise InputError(f"{path} has {count - len(places)} slices of {count} that do not say where they lie")
    cosines = np.array([list(map(float, turned)) for turned, _ in places])
    positions = np.array([list(map(float, at)) for _, at in places])
    normals = np.cross(cosines[:, :3], cosines[:, 3:])
    if (normals @ normals[0] < PARALLEL).any():
        raise InputError(
            f"{path} has slices that are not parallel (scouts of several planes?): give each plane a folder"
        )
    heights = positions @ normals[0]
    order = np.argsort(heights)
    steps = np.diff(heights[order])
    usual = float(np.median(steps))
    if usual < 1e-3 or (steps < UNEVEN * usual).any():
        alike = int((steps < max(UNEVEN * usual, 1e-3)).sum())
        raise InputError(
            f"{path} has {alike} slices at the place of another (echoes, phases or a second reconstruction): put each "
            "set into a folder of its own"
        )
    if (np.abs(steps - usual) > UNEVEN * usual).any():
        raise InputError(
            f"{path} has slices that are not evenly apart ({steps.min():.2f} to {steps.max():.2f} mm): some are "
            "missing, or they are of several thicknesses; give a whole series, or resample it"
        )
    along = positions[order[-1]] - positions[order[0]]
    if abs(along @ normals[0]) / np.linalg.norm(along) < TILTED:
        angle = np.degrees(np.arccos(abs(along @ normals[0]) / np.linalg.norm(along)))
        logger.warning(
            f"{path} has a gantry tilt of {angle:.0f} degrees: a mask is right on each slice, and as NIfTI lies beside "
            "it in space; a DICOM SEG does not"
        )
    return heights
