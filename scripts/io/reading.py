# SPDX-License-Identifier: Apache-2.0
"""Images and labels from files of any supported kind, checked, in the axis order of MONAI's readers: [C, X, Y] or [C,
X, Y, Z].

Axis 0 is x (columns), axis 1 is y (rows), the last axis of a volume is the slice.
"""

import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ITKReader, MetaTensor
from monai.transforms import LoadImage, MapTransform
from monai.transforms.io.array import SUPPORTED_READERS
from monai.utils import optional_import

from ..errors import InputError
from .dicom import is_dicom, is_segmentation, read_segmentation, series_files
from .dicom_series import check_series
from .file_state import file_state
from .grids import PARTIAL_KEY
from .headers import check_header
from .intensities import intensity_bounds, is_picture
from .nifti import NiftiReader
from .pictures import PICTURE_SUFFIXES, PictureReader, without_edges

itk, _ = optional_import("itk")
logger = logging.getLogger(__name__)

ROUNDING = 1e-3  # by which ids of a scaled header may miss whole numbers


class SeriesReader(ITKReader):
    """Read the files of one DICOM series as a volume, in their order."""

    def read(self, data: Any, **kwargs: Any) -> Any:
        return itk.imread([str(name) for name in data], **self.kwargs)


# LoadImage makes one of each of MONAI's readers; this one, not used here, warns where its package is not installed
SUPPORTED_READERS.pop("nvimgcodecpydicomreader", None)


class LoadCheckedImaged(MapTransform):  # not a LoadImaged: MONAI Label changes what those return
    """Load image files by suffix with the channel first, and say in one sentence what is wrong with a bad one.

    The last volume stays in memory, since the items of its slices follow each other in validation and when a cache
    fills. All but 8-bit pictures carry the :func:`intensity_bounds` of the whole image as ``meta["percentiles"]``, so
    that a slice is scaled as its volume.

    Args:
        keys: keys of file paths; a folder is read as a DICOM series.
        label: whether the files are labels: palette indices stay as they are, and instead of one path there may be
            ``[[path, ...], ...]``, for each class the mask of each rater.

    In the place of a path there may be a function that returns the array, (C, X, Y), with its meta.

    Raises:
        InputError: when a file is missing, unreadable, has too many channels, or holds pixels that are not finite, or
            when raters' masks differ in size.
    """

    def __init__(self, keys: KeysCollection, label: bool = False) -> None:
        super().__init__(keys)
        self._loader = LoadImage(dtype=None, image_only=True, ensure_channel_first=True)
        # the last one that knows a file's suffix reads it, whatever other packages for NRRD or DICOM are installed
        self._loader.readers = [NiftiReader(), PictureReader(keep_palette=label)]
        if optional_import("itk")[1]:  # a machine that only trains may do without
            self._loader.readers.insert(0, ITKReader())
        self.label = label
        self.last: tuple[tuple, MetaTensor] | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            source = data[key]
            if callable(source):  # it is drawn, not read
                loaded[key] = source()
            elif self.label and not isinstance(source, (str, Path)):
                loaded[key] = self.load_raters(source)
            else:
                loaded[key] = self.load(Path(str(source)))
        return loaded

    def load_raters(self, classes: Sequence[Sequence[str]]) -> MetaTensor:
        """Load what several raters drew, and give their mean.

        Args:
            classes: for each class, the mask of each rater, whose object is what is above half of the largest value.

        Returns:
            (C, X, Y[, Z]) float32 in 0..1: the share of the raters who hold a pixel to be of the class.
        """
        masks = [[self.load_mask(path) for path in paths] for paths in classes]
        first = masks[0][0]
        for path, mask in zip(chain(*classes), chain(*masks)):
            if mask.shape != first.shape:
                one, other = (" x ".join(str(n) for n in spatial_shape(m)) for m in (first, mask))
                raise InputError(f"{path} is {other} but {classes[0][0]} is {one}: masks of one image have one size")
        means = torch.cat([sum(of_class) / len(of_class) for of_class in masks])  # of uint8: float32
        return MetaTensor(means, meta={**first.meta, "raters": [len(of_class) for of_class in masks]})

    def load_mask(self, path: str) -> MetaTensor:
        """Load one rater's mask as (1, X, Y[, Z]) uint8 of 0 and 1."""
        mask = label_values(self.load(Path(path)))
        return (mask > mask.max() / 2).to(torch.uint8)

    def load(self, path: Path) -> MetaTensor:
        """Load one file as (C, X, Y) or (C, X, Y, Z), in its own type."""
        if not path.exists():
            raise InputError(f"{path} does not exist")
        state = file_state(path)
        last = self.last  # one look: other threads may load beside this one
        if last is not None and last[0] == state:
            return last[1]
        try:
            source = self.file_of(path)
            if source.is_file():
                check_header(source)
            is_label = is_segmentation(source)
            if is_label and not self.label:
                raise InputError(f"{source} is a DICOM SEG: that is a label, give the image that it is of")
            files = [] if is_label else series_files(source) if source.is_dir() else [source] * is_dicom(source)
            series = check_series(source, files) if files else None
            if is_label:
                image = load_segmentation(source)
            elif series and source.is_dir():
                # the type of the first slice may not hold the others' values
                reader = SeriesReader(pixel_type=itk.F) if series.slopes_differ else SeriesReader()
                load = LoadImage(reader, dtype=None, image_only=True, ensure_channel_first=True)
                image = load(series.files)
            else:
                image = self._loader(str(source))
        except InputError:
            raise
        except Exception as error:  # each reader has its own kinds
            raise InputError(f"{path} cannot be read as an image: {_first_line(error)}") from error
        if source.is_dir():
            image.meta["filename_or_obj"] = str(source)
        slices = image.shape[3] if image.ndim == 4 else 1
        if source.is_dir() and slices != len(files):
            raise InputError(
                f"{path} has {len(files)} files, of which {slices} could be read as slices: mend the others"
            )
        if image.ndim not in (3, 4) or 0 in image.shape:
            raise InputError(f"{path} is not an image or a volume: its array is {tuple(image.shape)}")
        if image.is_floating_point() and not bool(torch.isfinite(image).all()):
            bad = int((~torch.isfinite(image)).sum())
            raise InputError(f"{path} holds {bad} pixels that are NaN or infinite: mend or remove the file")
        if self.label and source.name.lower().endswith(".nrrd"):  # 3D Slicer cuts them to what is segmented
            image.meta[PARTIAL_KEY] = True
        if not self.label and image.shape[0] > 4:
            raise InputError(
                f"{path} has {image.shape[0]} channels: an image has 1 to 4 (grey, RGB, each with or without alpha)"
            )
        if not self.label and not is_picture(image):
            shown = image if series is None or series.padding is None else image[image != series.padding][None]
            image.meta["percentiles"] = intensity_bounds(shown if shown.numel() else image)
        self.last = (state, image) if image.ndim == 4 else None
        return image

    def file_of(self, path: Path) -> Path:
        """Return the file to read of a path: the only one of a folder, or the folder of a series."""
        if path.is_dir():
            files = series_files(path)
            if not files:
                raise InputError(f"{path} is a folder without a DICOM series: give a file, or the folder of one")
            return files[0] if len(files) == 1 else path
        return path


def load_segmentation(path: Path) -> MetaTensor:
    """Load a DICOM SEG as (1, X, Y, Z) ids, with the slices it has."""
    ids, affine = read_segmentation(path)
    meta = {"filename_or_obj": str(path), PARTIAL_KEY: True}
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(ids))[None], affine=torch.from_numpy(affine), meta=meta)


def _first_line(error: Exception) -> str:
    """Return the first line that means something to a user; ITK puts a line of its own source before it."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not re.fullmatch(r".*\.[ch]xx:\d+:", line)), type(error).__name__)


def label_values(label: MetaTensor) -> MetaTensor:
    """Return a label's ids as one int32 channel; the mean of several raters stays as it is.

    Args:
        label: (C, X, Y[, Z]) as read by :class:`LoadCheckedImaged`; several channels must be copies of each other (a
            grey mask saved as RGB), beside alpha. A JPEG is lossy: there, what is above half is object 255.

    Returns:
        (1, X, Y[, Z]) int32; or (C, X, Y[, Z]) float32 in 0..1 of several raters, where channel i - 1 is id i.

    Raises:
        InputError: when channels differ, or values are not whole numbers from 0.
    """
    if "raters" in label.meta:
        return label
    path = str(label.meta.get("filename_or_obj", "the label"))
    colours = label[: {2: 1, 4: 3}.get(label.shape[0], label.shape[0])]
    if not bool((colours == colours[:1]).all()):
        raise InputError(f"{path} is a colour picture, not a label: give one channel of ids (0 is background)")
    if colours.shape[0] < label.shape[0] and bool((colours == colours.flatten()[0]).all()):
        opaque = label[-1:]
        if not bool((opaque == opaque.flatten()[0]).all()):
            logger.warning(f"{path} has its mask in its transparency: what is opaque is the object")
            return (opaque > 127).int() * 255
    label = colours[:1]
    if path.lower().endswith((".jpg", ".jpeg")):
        return (label > 127).int() * 255
    if label.is_floating_point():
        whole = label.round()
        if not bool(((label - whole).abs() <= ROUNDING).all()):
            raise InputError(f"{path} is not a label: its values are not whole numbers")
        label = whole
    if path.lower().endswith(PICTURE_SUFFIXES) and label.dtype == torch.uint8:
        label = MetaTensor(torch.from_numpy(without_edges(label[0].numpy(), path))[None], meta=label.meta)
    if bool((label < 0).any()):
        raise InputError(f"{path} is not a label: it holds negative values")
    return label.to(torch.int32)


def spatial_shape(image: MetaTensor | np.ndarray) -> tuple[int, ...]:
    """Return (X, Y) or (X, Y, Z) of a channel-first image, without a last axis of one slice."""
    shape = tuple(int(n) for n in image.shape[1:])
    return shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
