# SPDX-License-Identifier: Apache-2.0
"""Masks as NIfTI lie where their image lies, for every program that asks one form or the other."""

import itk
import nibabel
import numpy as np
import pytest

from scripts.io.nifti import affine_in_itk, save_like

QFORM = np.array([[-0.8, 0, 0, 100], [0, -0.9, 0, 50], [0, 0, 3, -20], [0, 0, 0, 1.0]])
SFORM = np.array([[-0.8, 0, 0, 10], [0, -0.9, 0, -30], [0, 0, 3, 70], [0, 0, 0, 1.0]])
SCALED = np.diag([1.1, 1.1, 1.1, 1]) @ QFORM


def write(path, kind):
    shape = {"two axes": (6, 5), "four axes": (6, 5, 4, 1)}.get(kind, (6, 5, 4))
    made = nibabel.Nifti2Image if kind == "nifti 2" else nibabel.Nifti1Image
    image = made(np.arange(np.prod(shape), dtype=np.int16).reshape(shape) * 3, None)
    image.header.set_zooms([0.8, 0.9, 3, 1][: len(shape)])
    image.header.set_xyzt_units("mm", "sec")
    if kind == "sform alone":
        image.set_sform(SFORM, 2)
        image.set_qform(None, 0)
        image.header["pixdim"][1:4] = 1
    elif kind == "neither":
        image.header["sform_code"] = image.header["qform_code"] = 0
    else:
        image.set_qform(QFORM, 1)
        image.set_sform(SCALED if kind == "scaled" else SFORM if kind == "differ" else QFORM, 2)
    if kind == "slope":
        image.header.set_slope_inter(2.5, -1000)
    nibabel.save(image, path)
    return path


KINDS = ["same", "differ", "scaled", "sform alone", "neither", "slope", "two axes", "four axes", "nifti 2"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_has_both_forms_their_codes_and_the_units_of_its_source(tmp_path, kind):
    source = write(tmp_path / "scan.nii.gz", kind)
    mask = np.zeros(nibabel.load(source).shape[:3], np.uint8)
    mask[2:4, 1:3] = 200
    save_like(tmp_path / "mask.nii.gz", mask, source)
    one, other = nibabel.load(source), nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(other.dataobj), mask) and other.get_data_dtype() == np.uint8
    assert np.allclose(one.affine, other.affine)
    for name in ("sform_code", "qform_code", "xyzt_units"):
        assert one.header[name] == other.header[name]
    for form in ("get_sform", "get_qform"):
        assert np.allclose(getattr(one, form)(), getattr(other, form)(), atol=1e-5)
    if kind not in ("four axes", "nifti 2"):  # which ITK has otherwise, or does not read
        images = [itk.imread(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz")]
        places = [np.array(image.TransformIndexToPhysicalPoint([2, 1, 1][: mask.ndim])) for image in images]
        assert np.allclose(*places, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("two axes", "nifti 2")])
def test_a_client_lays_a_mask_where_it_has_the_image(tmp_path, kind):
    source = write(tmp_path / "scan.nii.gz", kind)
    seen = itk.imread(source)
    place = np.array(seen.TransformIndexToPhysicalPoint([2, 1, 3, 0][: seen.GetImageDimension()]))[:3]
    assert np.allclose((affine_in_itk(source) @ [2, 1, 3, 1])[:3], place * [-1, -1, 1], atol=1e-4)


def test_a_file_that_itk_cannot_read_has_no_place_there(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"nothing")
    assert affine_in_itk(tmp_path / "a.nii") is None
