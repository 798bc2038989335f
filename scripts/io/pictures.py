# SPDX-License-Identifier: Apache-2.0
"""Pictures through PIL, as their arrays are stored: nothing is turned, and what PIL gets wrong is mended or refused."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import PILReader
from PIL import Image, TiffImagePlugin
from scipy import ndimage

from ..errors import InputError

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
DIRECT_MODES = {"L", "LA", "RGB", "RGBA", "I", "F", "I;16"}  # arrays of these hold intensities
GREY_MODES = {"1": "L", "I;16B": "I", "I;16L": "I", "I;16N": "I"}  # and these are grey once converted
MOST_PIXELS = 2**30  # of a picture; PIL warns of an attack from 89 million on, and a slide has more
Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # once: PIL has one limit for all threads
BITS, PHOTOMETRIC, PLANAR, ORIENTATION = 258, 262, 284, 274  # tags of TIFF and EXIF
TURNED_BY_PIL = {  # what undoes it, by the orientation of a TIFF; of the others, 5 to 8, it scrambles some
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
}
AROUND, MOSTLY = 21, 0.8  # pixels of an edge, and share of the greys that lie on one
OVERSHOOT, MOST_CLASSES = 0.2, 8  # of bicubic interpolation, as a share of the step; ids with the background
STEPS = 3  # values of edges that a label must have at least to be taken for one that was smoothed


class PictureReader(PILReader):
    """Read PNG, JPEG, BMP, GIF and TIFF through PIL; colour pictures of unusual modes (palette, CMYK, 1 bit) become RGB
    or grey.

    The array is the one that is stored: an EXIF orientation turns nothing, so that labels and points of the array fit.

    Args:
        keep_palette: give a palette picture's indices, which are a label's values, not its colours.
    """

    def __init__(self, keep_palette: bool = False) -> None:
        super().__init__(converter=self.convert)
        self.keep_palette = keep_palette

    def verify_suffix(self, filename: Any) -> bool:
        names = filename if isinstance(filename, (tuple, list)) else [filename]
        return all(str(n).lower().endswith(PICTURE_SUFFIXES) for n in names)

    def read(self, data: Any, **kwargs: Any) -> Any:
        for path in [data] if isinstance(data, (str, Path)) else data:
            check_tiff(Path(path))
        return super().read(data, **kwargs)

    def convert(self, picture: Image.Image) -> Image.Image:
        name = getattr(picture, "filename", "a picture")
        pages = getattr(picture, "n_frames", 1)
        if pages > 1:
            raise InputError(f"{name} has {pages} pages: give a file for each, or a volume as NIfTI")
        photometric = getattr(picture, "tag_v2", {}).get(PHOTOMETRIC)
        orientation = picture.getexif().get(ORIENTATION, 1)
        picture.load()  # a picture that is cut short fails here, by name
        if picture.format == "TIFF" and orientation in TURNED_BY_PIL:
            picture = picture.transpose(TURNED_BY_PIL[orientation])
        if orientation != 1:
            logger.warning(f"{name} is stored turned (EXIF): it, its labels and points are taken as they are stored")
        if picture.mode.startswith("I;16") and photometric == 0:  # white is zero
            return Image.fromarray(65535 - np.asarray(picture.convert("I")).astype(np.int32), "I")
        if self.keep_palette and picture.mode in ("P", "PA"):
            return read_indices(picture, name)
        if picture.mode in DIRECT_MODES:
            return picture
        return picture.convert(GREY_MODES.get(picture.mode, "RGB"))


def check_tiff(path: Path) -> None:
    """Refuse kinds of TIFF that PIL cannot read, or scrambles.

    Raises:
        InputError: with what to do.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return
    try:
        with path.open("rb") as file:
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
            bits, planes, orientation = tags.get(BITS, (1,)), tags.get(PLANAR, 1), tags.get(ORIENTATION, 1)
    except Exception:  # of many kinds, and the reader says what is wrong
        return
    if max(bits) > 32:
        raise InputError(f"{path} is a {max(bits)}-bit TIFF, which is not read: save it with 8, 16 or 32 bits")
    if orientation > 4:
        raise InputError(f"{path} is a TIFF that is stored lying on its side: save it upright, or as PNG")
    if planes == 2 and len(bits) > 1 and max(bits) > 8:
        raise InputError(f"{path} is a TIFF of planes of {max(bits)} bits, which is not read: save its pixels together")


def read_indices(picture: Image.Image, name: str) -> Image.Image:
    """Return a palette picture's indices as a label, or its greys where these are what it shows.

    Index 0 is the background. Programs that save a black and white mask with a palette may give white index 0: then the
    greys are the label, as every viewer shows it.

    Args:
        picture: of PIL, with a palette.
        name: of the file, for the log.
    """
    used = [index for index, count in enumerate(picture.getchannel(0).histogram()[:256]) if count]
    colours = np.asarray(picture.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    colours = np.vstack([colours, np.zeros((256, 3), colours.dtype)])
    shown = colours[used]
    if not colours[0].any() or 0 not in used:
        return picture
    if (shown == shown[:, :1]).all() and len(np.unique(shown[:, 0])) == len(used):
        logger.warning(f"{name}: index 0 of its palette is not black: its greys are taken for the label")
        return picture.convert("RGB").convert("L")
    logger.warning(f"{name}: index 0 of its palette, which is taken for the background, is not black")
    return picture


def without_edges(values: np.ndarray, name: str) -> np.ndarray:
    """Return a label without the greys that smoothing or JPEG left on its edges.

    A value is solid where a square of 3 x 3 pixels has it. In a mask that was resized with interpolation, drawn with
    a soft brush or saved as JPEG in between, only what is nearly black or nearly white is solid.

    Args:
        values: (X, Y) of an 8-bit picture.
        name: of the file.

    Returns:
        The same, or 0 and 255 by what is above half of white.

    Raises:
        InputError: when there are greys on the edges of several ids, which cannot be told from ids.
    """
    found = np.unique(values)
    if len(found) < 2 + STEPS:
        return values
    is_solid = ndimage.minimum_filter(values, 3) == ndimage.maximum_filter(values, 3)
    solid = np.unique(values[is_solid])
    loose = np.setdiff1d(found, solid)
    if len(loose) < STEPS or len(solid) < 2:
        return values
    top = int(found[-1])
    if top >= 200 and ((solid <= 0.1 * top) | (solid >= 0.9 * top)).all() and solid[-1] >= 0.9 * top:
        logger.warning(f"{name} has greys on its edges (smoothed, or saved as JPEG): what is above half is the object")
        return np.where(values > top / 2, 255, 0).astype(values.dtype)
    marks = np.where(np.isin(values, solid), values.astype(int), -1)
    highest = ndimage.maximum_filter(marks, AROUND)
    lowest = ndimage.minimum_filter(np.where(marks < 0, 256, marks), AROUND)
    beyond = OVERSHOOT * (highest - lowest)
    on_edges = (lowest < highest) & (lowest - beyond < values) & (values < highest + beyond)
    is_of_classes = len(solid) <= MOST_CLASSES  # many ids are instances, whose neighbours may be small
    if is_of_classes and len(loose) >= 4 * STEPS and on_edges[np.isin(values, loose)].mean() > MOSTLY:
        raise InputError(
            f"{name} has greys on the edges of its ids (smoothed, or saved as JPEG): save it again without smoothing, "
            "as PNG with the ids alone"
        )
    return values
