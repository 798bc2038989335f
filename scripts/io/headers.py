# SPDX-License-Identifier: Apache-2.0
"""What a file's header claims, held against the file before memory is taken for it."""

import math
from pathlib import Path
from typing import Any

import nibabel

from ..errors import InputError

MOST_HEADER = 2**20  # bytes
MOST_DEFLATED = 1032  # bytes that one byte of gzip or zlib can stand for
NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(
        ("short", "short int", "signed short", "int16", "int16_t", "ushort", "unsigned short", "uint16"), 2
    ),
    **dict.fromkeys(("uint16_t", "unsigned short int", "signed short int"), 2),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t", "ulonglong", "uint64", "uint64_t", "double"), 8),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
}
META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4, "FLOAT": 4}


def check_header(path: Path) -> None:
    """Refuse a file that cannot hold what its header claims, or whose data lies elsewhere.

    Args:
        path: of a NIfTI, NRRD or MetaImage; others, and headers that cannot be read, are left to their readers.

    Raises:
        InputError: when memory would be taken for what is not there, or a header names a file outside its folder.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        claimed, source, is_packed = _nifti(path)
    elif name.endswith((".nrrd", ".nhdr")):
        claimed, source, is_packed = _nrrd(path)
    elif name.endswith((".mha", ".mhd")):
        claimed, source, is_packed = _meta_image(path)
    else:
        return
    if source is not None and source != path:
        if source.is_absolute() or ".." in source.parts:
            raise InputError(f"{path} takes its data from {source}, outside of its folder: save it as one file")
        source = path.parent / source
    if source is None or not source.is_file():
        return
    held = source.stat().st_size * (MOST_DEFLATED if is_packed else 1)
    if claimed > held:
        raise InputError(f"{path} claims {claimed} bytes of voxels, and its file cannot hold them: it was cut short")


def _nifti(path: Path) -> tuple[int, Path | None, bool]:
    """Return the bytes that a NIfTI claims, the file that holds them, and whether it is compressed."""
    try:
        image: Any = nibabel.load(path)  # reads no voxels
        claimed = math.prod(image.shape) * image.get_data_dtype().itemsize
    except Exception:  # nibabel has its own kinds
        return 0, None, False
    return claimed, path, path.name.lower().endswith(".gz")


def _nrrd(path: Path) -> tuple[int, Path | None, bool]:
    """Return what the header of an NRRD claims."""
    fields = _fields(path, ":", end="")
    data = fields.get("data file", fields.get("datafile"))
    width = NRRD_BYTES.get(fields.get("type", "").lower(), 1)
    try:
        claimed = math.prod(int(size) for size in fields.get("sizes", "0").split()) * width
    except ValueError:
        return 0, None, False
    is_packed = fields.get("encoding", "raw").lower() not in ("raw", "txt", "text", "ascii", "hex")
    return claimed, Path(data) if data else path, is_packed


def _meta_image(path: Path) -> tuple[int, Path | None, bool]:
    """Return what the header of a MetaImage claims."""
    fields = _fields(path, "=", end="elementdatafile")
    data = fields.get("elementdatafile", "LOCAL")
    width = META_BYTES.get(fields.get("elementtype", "").upper().removeprefix("MET_"), 1)
    try:
        claimed = math.prod(int(size) for size in fields.get("dimsize", "0").split()) * width
    except ValueError:
        return 0, None, False
    return claimed, path if data.upper() == "LOCAL" else Path(data), fields.get("compresseddata", "").lower() == "true"


def _fields(path: Path, separator: str, end: str) -> dict[str, str]:
    """Read ``name separator value`` lines of a header, up to an empty line or the field that ends it."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in file.read(MOST_HEADER).split(b"\n"):
            text = line.decode("latin-1").strip()
            if not text:
                break
            key, found, value = text.partition(separator)
            if found:
                fields[key.strip().lower()] = value.lstrip("=").strip()
            if end and key.strip().lower() == end:
                break
    return fields
