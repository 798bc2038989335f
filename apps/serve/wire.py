# SPDX-License-Identifier: Apache-2.0
"""Arrays as clients send them: what they declare is bounded before anything is unfolded."""

import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from nnInteractive.inference.remote.serialization import MAGIC, pack_array, unpack_array

from apps.common.errors import RequestError

TYPES = {np.dtype(name).name for name in ("?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")}
MOST_BYTES = 2 * 2**30  # of an array, unfolded

__all__ = ["MOST_BYTES", "TYPES", "check_size", "pack_array", "read_gzip", "read_packed"]


def read_packed(body: bytes, most_bytes: int = MOST_BYTES) -> np.ndarray:
    """Read an array of the client package nninteractive-client.

    Args:
        body: as its ``pack_array`` writes it.
        most_bytes: that the array may take.

    Returns:
        An array of numbers.

    Raises:
        RequestError: when it is no such array, or too large.
    """
    if not body.startswith(MAGIC):
        raise RequestError("the body is no packed array: send it by pack_array of nninteractive-client")
    try:
        _, _, _, ndim, name_length = struct.unpack_from("<4sBBBB", body, 0)
        name = body[8 : 8 + name_length].decode("ascii")
        shape = struct.unpack_from(f"<{ndim}q", body, 8 + name_length)
    except (struct.error, UnicodeDecodeError) as error:
        raise RequestError("the body is cut short: send the array again") from error
    if name not in TYPES:
        raise RequestError(f"an array has numbers, got the type {name!r:.40}")
    check_size(shape, np.dtype(name).itemsize, most_bytes)
    try:
        return unpack_array(body)
    except Exception as error:  # of whatever kind blosc2 raises where bytes are wrong
        raise RequestError(f"the array cannot be unpacked: {error}") from error


def read_gzip(body: bytes, shape: Sequence[int], most_bytes: int = MOST_BYTES) -> np.ndarray:
    """Read the float32 values of an image that ITK-SNAP sends.

    Args:
        body: compressed by gzip.
        shape: of the array.
        most_bytes: that it may take.

    Raises:
        RequestError: when there are fewer or more values than the shape says, or too many.
    """
    size = check_size(shape, 4, most_bytes)
    unfold = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        values = unfold.decompress(body, size + 1)
    except zlib.error as error:
        raise RequestError(f"the image is not compressed by gzip: {error}") from error
    if len(values) != size:
        raise RequestError(f"an image of {list(shape)} has {size} bytes, and {len(values)} or more came")
    return np.frombuffer(bytearray(values), "<f4").reshape(shape)  # which may be written to


def check_size(shape: Sequence[int], itemsize: int, most_bytes: int = MOST_BYTES) -> int:
    """Return the bytes of an array.

    Args:
        shape: of the array.
        itemsize: bytes of a value.
        most_bytes: that it may take.

    Raises:
        RequestError: when a side is not positive, or all of it is too large.
    """
    if not shape or min(shape) < 1:
        raise RequestError(f"an image has one pixel at least along each axis, got {list(shape)}")
    size = math.prod(shape) * itemsize
    if size > most_bytes:
        raise RequestError(
            f"{list(shape)} takes {size / 2**30:.1f} GiB: this server takes {most_bytes / 2**30:.1f} GiB"
        )
    return size
