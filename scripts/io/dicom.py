# SPDX-License-Identifier: Apache-2.0
"""DICOM: which files and folders are images, and segmentations (DICOM SEG) read and written by highdicom."""

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.misc
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
    generate_uid,
)

from ..errors import InputError
from .axes import upright
from .pictures import PICTURE_SUFFIXES

HEADER = ("SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "ImagePositionPatient", "Rows")
LABEL_MAPS = "1.2.840.10008.5.1.4.1.1.66.7"  # pydicom has no name for it
SEGMENTATIONS = (SegmentationStorage, LABEL_MAPS)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# of an image, which files may leave out or empty and highdicom copies
MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
DICOM_EQUIPMENT = {
    "manufacturer": "EfficientSAM Adapter",
    "manufacturer_model_name": "EfficientSAM Adapter",
    "software_versions": "1",
    "device_serial_number": "0",
}


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its suffix or else its first bytes; a DICOMDIR lists files and is none."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() == ".dcm":
        return True
    if path.suffix.lower() in PICTURE_SUFFIXES:  # a folder may have thousands
        return False
    return pydicom.misc.is_dicom(path)


def is_segmentation(path: Path) -> bool:
    """Return whether a file is a DICOM SEG, which is a label and no image."""
    return is_dicom(path) and _header(path).get("SOPClassUID") in SEGMENTATIONS


def series_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder that is one image: a volume of slices, or a single file.

    Returns:
        The files, in the order of their names; none where the folder is no image, but holds several or none.

    Raises:
        InputError: when it holds several volumes, which its path cannot tell apart.
    """
    files = sorted(path for path in folder.iterdir() if is_dicom(path))
    images = [path for path in files if "Rows" in _header(path) and not is_segmentation(path)]
    files = images or files  # what is planned or segmented on a series may lie beside it
    headers = [_header(path) for path in files]
    slices = [header.get("SeriesInstanceUID") for header in headers if "ImagePositionPatient" in header]
    if len(files) > 1 and len(set(slices)) > 1 and len(slices) > len(set(slices)):
        known = {header.get("SeriesInstanceUID"): str(header.get("SeriesDescription") or "?") for header in headers}
        shown = ", ".join(f"{known[one]} ({slices.count(one)} slices)" for one in dict.fromkeys(slices))
        raise InputError(f"{folder} holds {len(set(slices))} DICOM series: put each into a folder of its own ({shown})")
    is_volume = len(slices) == len(files) and len(set(slices)) == 1
    return files if len(files) == 1 or is_volume else []


def read_segmentation(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a DICOM SEG; of segments that overlap, the later one lies on top.

    Returns:
        Ids (X, Y, Z), which are segment numbers, and their affine (4, 4), from an index to RAS in mm. Slices without a
        segment are mostly not in the file: Z begins and ends with those that are, and may step over some.

    Raises:
        InputError: when highdicom is missing, or the file has no regular slices.
    """
    segmentation = _highdicom("read").seg.segread(path)
    try:
        volume = segmentation.get_volume(combine_segments=True, skip_overlap_checks=True)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path} is a DICOM SEG whose frames form no volume: {error}") from error
    ids = volume.array.transpose(2, 1, 0)  # (slice, row, column) -> (X, Y, Z)
    return ids, LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]


def write_segmentation(path: Path, source: Path, labels: Any, affine: np.ndarray, names: Sequence[str]) -> None:
    """Write a label map as a DICOM SEG of the image that it is of.

    Args:
        path: of the file.
        source: the image: a DICOM file or the folder of a series.
        labels: (X, Y[, Z]) ids; id i is segment i.
        affine: of the image, from an index to RAS in mm.
        names: of the segments, from id 1 on.

    Raises:
        InputError: when highdicom is missing, the source is not DICOM or has several frames, or nothing was found.
    """
    from pydicom.sr.codedict import codes  # a quarter of a second, for files that few write

    library = _highdicom("write")
    files = series_files(source) if source.is_dir() else [source] * is_dicom(source)
    if not files:
        raise InputError(f"{source} is not DICOM: output_type dicomseg is for images that are")
    images = [_read_whole(file) for file in files]
    if any(int(image.get("NumberOfFrames", 1)) > 1 for image in images):
        raise InputError(f"{source} has several frames in a file: output_type dicomseg is for a file for each slice")
    frame_of_reference = generate_uid()
    for image in images:
        for keyword in MAY_BE_EMPTY:
            setattr(image, keyword, image.get(keyword, ""))
        image.FrameOfReferenceUID = image.get("FrameOfReferenceUID") or frame_of_reference
    ids = np.atleast_3d(np.asarray(labels))
    if not ids.any():
        raise InputError(f"nothing was found on {source}: a DICOM SEG cannot be empty")
    frames = np.stack([upright(ids[..., k]) for k in _slices_of(images, affine)])
    algorithm = library.AlgorithmIdentificationSequence(
        name="EfficientSAM", version="1", family=codes.cid7162.ArtificialIntelligence
    )
    segments = [
        library.seg.SegmentDescription(
            segment_number=number,
            segment_label=str(name),
            segmented_property_category=codes.SCT.Tissue,  # what a label map says nothing of
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=library.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(names, 1)
    ]
    segmentation = library.seg.Segmentation(
        source_images=images,
        pixel_array=frames.astype(np.uint8 if len(names) < 256 else np.uint16),
        segmentation_type=library.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        **DICOM_EQUIPMENT,
    )
    segmentation.save_as(path)


def _read_whole(file: Path) -> pydicom.Dataset:
    """Read a file, also one of old without a preamble, which says nothing of how it is encoded."""
    image = pydicom.dcmread(file, force=True)
    if "TransferSyntaxUID" not in image.file_meta:
        is_implicit, is_little = image.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
    return image


def _slices_of(images: Sequence[pydicom.Dataset], affine: np.ndarray) -> list[int]:
    """Find the slice of a volume that each file is: their order along the slices' axis, whatever their distances."""
    if len(images) == 1:
        return [0]
    upwards = (LPS_TO_RAS @ affine)[:3, 2]
    heights = [float(np.array(list(map(float, image.ImagePositionPatient))) @ upwards) for image in images]
    order = sorted(range(len(images)), key=heights.__getitem__)
    return [order.index(n) for n in range(len(images))]


@functools.lru_cache(maxsize=4096)
def _read_header(path: Path, changed: int) -> pydicom.Dataset:
    return pydicom.dcmread(path, specific_tags=list(HEADER), stop_before_pixels=True, force=True)


def _header(path: Path) -> pydicom.Dataset:
    """Read what tells files apart; of a file that is broken, nothing."""
    try:
        return _read_header(path, path.stat().st_mtime_ns)
    except (InvalidDicomError, OSError, ValueError, KeyError, EOFError):
        return pydicom.Dataset()


def _highdicom(what: str) -> Any:
    """Import highdicom when it is asked for: that takes a second, and few ask."""
    try:
        return importlib.import_module("highdicom")
    except ImportError as error:
        raise InputError(f"to {what} a DICOM SEG takes highdicom: pip install highdicom") from error
