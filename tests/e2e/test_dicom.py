# SPDX-License-Identifier: Apache-2.0
"""DICOM through the bundle's commands: trained on series with segmentations, predicted as a segmentation."""

import highdicom
import nibabel
import numpy as np
import pytest

from tests.e2e.bundle import INFERENCE, SMALL, TRAIN, places, run_warm
from tests.e2e.datasets import disc, picture
from tests.files import write_series
from tests.io.test_dicom import write_seg

pytestmark = pytest.mark.slow

DEPTH = 4


def make_series(folder, index):
    """A series of four slices without suffixes, the two in the middle with a disc, and the masks of it."""
    masks = np.stack([disc(index) * (0 < k < DEPTH - 1) for k in range(DEPTH)]).astype(np.uint8)
    write_series(folder, [picture(mask > 0)[..., 0].astype(np.uint16) * 4 for mask in masks], 2.5)
    for path in list(folder.iterdir()):
        path.rename(path.with_suffix(""))
    return masks


def test_series_with_segmentations_train(folder):
    data = folder / "data"
    for i in range(4):
        masks = make_series(data / "images" / f"case_{i}", i)
        write_seg(data / "labels" / f"case_{i}.dcm", data / "images" / f"case_{i}", masks, count=1)
    result = run_warm("training", TRAIN, **SMALL, dataset_dir=data, **places(folder))
    assert result.code == 0, result.err
    assert "left out" not in result.out
    assert "6 objects on 6 items of 3 images" in result.out
    assert (folder / "models" / "model.pt").exists()


def test_a_prediction_is_written_as_a_segmentation(folder):
    series = folder / "scan"
    masks = make_series(series, 0)
    y, x = (int(axis.mean()) for axis in np.nonzero(masks[1]))
    asked = {"dataset_dir": series, "points": [[x, y, 1]], "slice": 1, "cache_dir": folder / "cache"}
    given = {**asked, "ckpt_path": "models/efficient_sam_vitt_base.pth", "image_size": 256}
    plain = run_warm("inferring", INFERENCE, **given, output_dir=folder / "nifti")
    assert plain.code == 0, plain.err
    result = run_warm("inferring", INFERENCE, **given, output_dir=folder / "seg", output_type="dicomseg")
    assert result.code == 0, result.err
    expected = nibabel.load(folder / "nifti" / "scan_mask.nii.gz").get_fdata()  # (X, Y, Z)
    written = highdicom.seg.segread(folder / "seg" / "scan_mask.dcm")
    volume = written.get_volume(combine_segments=True)
    assert [segment.SegmentLabel for segment in written.SegmentSequence] == ["object 1"]
    assert volume.spatial_shape[0] == 1  # the slice that was asked
    np.testing.assert_array_equal(volume.array[0].T, expected[..., 1])
    assert expected[..., 1].any()
    assert [*volume.affine[:3, 3]] == [0, 0, 2.5]

    wrong = run_warm("inferring", INFERENCE, **given, output_dir=folder / "other", output_type="dicom")
    assert wrong.errors == ["error: output_type is dicomseg or null, got 'dicom'"]
