# SPDX-License-Identifier: Apache-2.0
"""What clients declare of arrays is bounded before anything is unfolded."""

import gzip
import struct

import numpy as np
import pytest

from apps.common.errors import RequestError
from apps.serve.wire import pack_array, read_gzip, read_packed


def declared(shape, name="uint8", magic=b"NNIA", payload=b""):
    head = struct.pack(f"<4sBBBB{len(name)}s", magic, 1, 1, len(shape), len(name), name.encode())
    return head + struct.pack(f"<{len(shape)}q", *shape) + payload


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "bool", "float64"])
def test_arrays_of_numbers_come_as_they_were_sent(dtype):
    array = np.arange(120).reshape(1, 4, 5, 6).astype(dtype)
    found = read_packed(pack_array(array))
    assert found.dtype == array.dtype and np.array_equal(found, array)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no packed array"),
        (b"NNIA\x01\x01\x04", "cut short"),
        (declared((2, 3))[:-4], "cut short"),
        (declared((2, 3), magic=b"ABCD"), "no packed array"),
        (declared((2, 3), "object"), "has numbers, got the type 'object'"),
        (declared((2, 3), "<U99999"), "has numbers"),
        (declared((1, 100_000, 100_000, 100)), "takes 931.3 GiB: this server takes 2.0 GiB"),
        (declared((2**62, 2**62)), "this server takes 2.0 GiB"),
        (declared((0, 5)), "one pixel at least"),
        (declared((-1, 5)), "one pixel at least"),
        (declared(()), "one pixel at least"),
        (declared((2, 3), payload=struct.pack("<I", 0)), "cannot be unpacked"),
        (declared((2, 3), payload=struct.pack("<IQQ", 1, 6, 9) + b"garbage!!"), "cannot be unpacked"),
        (pack_array(np.ones((64, 64), np.uint8))[:-7], "cannot be unpacked"),
    ],
    ids=range(14),
)
def test_what_is_no_array_or_too_large_is_refused(body, message):
    with pytest.raises(RequestError, match=message):
        read_packed(body)


def test_an_array_that_says_less_than_it_holds_is_refused():
    packed = pack_array(np.ones((8, 8), np.uint8))
    with pytest.raises(RequestError, match="cannot be unpacked"):
        read_packed(declared((2, 2)) + packed[len(declared((8, 8))) :])


def test_values_of_an_image_of_itk_snap_come_as_they_were_sent():
    values = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    assert np.array_equal(read_gzip(gzip.compress(values.tobytes()), (2, 3, 4)), values)


@pytest.mark.parametrize(
    ("body", "shape", "message"),
    [
        (gzip.compress(bytes(10**7)), (2, 3), "has 24 bytes, and 25 or more came"),
        (gzip.compress(bytes(8)), (2, 3), "has 24 bytes, and 8 or more came"),
        (b"no gzip", (2, 3), "not compressed by gzip"),
        (gzip.compress(bytes(24))[:12], (2, 3), "has 24 bytes, and . or more came"),
        (gzip.compress(bytes(24)), (10**6, 10**6), "this server takes"),
        (gzip.compress(bytes(24)), (0, 3), "one pixel at least"),
    ],
    ids=["bomb", "short", "no gzip", "cut", "large", "empty"],
)
def test_an_image_of_another_size_than_declared_is_refused(body, shape, message):
    with pytest.raises(RequestError, match=message):
        read_gzip(body, shape)
