# SPDX-License-Identifier: Apache-2.0
import gzip
import struct

import itk
import numpy as np
import pytest

from scripts.errors import InputError
from scripts.io.headers import check_header
from tests.files import write_nifti

NRRD = "NRRD0004\ntype: {}\ndimension: 3\nsizes: {}\nencoding: {}\n{}\n"
META = "NDims = 3\nDimSize = {}\nElementType = {}\nCompressedData = {}\nElementDataFile = {}\n"


def nifti(shape, kind=(4, 16)):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, *kind)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    return bytes(header)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii", nifti((2000, 2000, 400))),
        ("a.nii.gz", gzip.compress(nifti((2000, 2000, 400)), mtime=0)),
        ("a.nrrd", NRRD.format("short", "2000 2000 400", "gzip", "").encode() + b"\x1f\x8b"),
        ("a.nrrd", NRRD.format("double", "9 9 9", "raw", "").encode() + bytes(100)),
        ("a.mha", META.format("2000 2000 400", "MET_SHORT", "True", "LOCAL").encode() + b"x"),
        ("a.mhd", META.format("9 9 9", "MET_FLOAT", "False", "b.raw").encode()),
    ],
)
def test_a_claim_that_a_file_cannot_hold_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "b.raw").write_bytes(bytes(9))
    with pytest.raises(InputError, match=r"claims \d+ bytes of voxels"):
        check_header(tmp_path / name)


@pytest.mark.parametrize("elsewhere", ["/etc/passwd", "../b.raw", "a/../../b.raw"])
@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nhdr", NRRD.format("uchar", "2 2 2", "raw", "data file: {}\n")),
        ("a.nrrd", NRRD.format("uchar", "2 2 2", "raw", "datafile: {}\n")),
        ("a.mhd", META.format("2 2 2", "MET_UCHAR", "False", "{}")),
        ("a.mha", META.format("2 2 2", "MET_UCHAR", "False", "{}")),
    ],
)
def test_data_outside_of_the_headers_folder_is_refused(tmp_path, name, header, elsewhere):
    (tmp_path / name).write_text(header.format(elsewhere))
    with pytest.raises(InputError, match="outside of its folder"):
        check_header(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_whole_files_of_any_kind_pass(tmp_path, name, compress, kind):
    # nothing compresses better than zeros
    itk.imwrite(itk.image_from_array(np.zeros((40, 50, 60), kind)), str(tmp_path / name), compression=compress)
    check_header(tmp_path / name)


def test_other_files_and_broken_headers_are_left_to_their_readers(tmp_path):
    for name in ("a.png", "a.nii", "a.nrrd", "a.mha"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        check_header(tmp_path / name)
    check_header(write_nifti(tmp_path / "b.nii.gz", np.zeros((5, 6), np.int16)))
