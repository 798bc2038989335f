# SPDX-License-Identifier: Apache-2.0
"""Spreading as a user starts it: a volume and a click come in, a mask of the whole object goes out on its grid."""

import json

import nibabel
import numpy as np
import pytest

from tests.e2e.bundle import INFERENCE, run_warm
from tests.files import write_nifti

pytestmark = pytest.mark.slow

SPREAD = [INFERENCE, "configs/spread.yaml"]
AFFINE = np.array(
    [[-0.8, 0.1, 0, 30], [0.1, 0.8, 0, -20], [0, 0, 2.5, 7], [0, 0, 0, 1]]
)  # oblique, flipped, anisotropic


@pytest.fixture(scope="module")
def scan(shared):
    """A bright organ that is tilted, in noise: its file, and where it is."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in (96, 80, 24)), indexing="ij")
    organ = ((x - 45 - 1.5 * (z - 12)) / 20) ** 2 + ((y - 38) / 16) ** 2 + ((z - 12) / 9) ** 2 < 1
    volume = 60 + 120 * organ + np.random.default_rng(0).normal(0, 4, organ.shape)
    write_nifti(shared / "scan.nii.gz", volume.astype(np.int16), AFFINE)
    return shared / "scan.nii.gz", organ


@pytest.mark.parametrize(
    ("axis", "points", "k"), [(2, "[[45,38,1]]", 12), (1, "[[45,12,1]]", 38), (0, "[[38,12,1]]", 45)]
)
def test_one_click_segments_the_whole_organ_on_the_files_grid(scan, folder, axis, points, k):
    path, organ = scan
    settings = {"ckpt_path": "models/efficient_sam_vitt_base.pth", "dataset_dir": path, "output_dir": folder}
    result = run_warm("inferring", SPREAD, points=points, slice=k, axis=axis, **settings)
    assert result.code == 0, result.err
    mask = nibabel.load(folder / "scan_mask.nii.gz")
    assert np.allclose(mask.affine, AFFINE, atol=1e-5)
    found = np.asarray(mask.dataobj) == 1
    assert (folder / "scan_views.png").is_file()
    assert 2 * (found & organ).sum() / (found.sum() + organ.sum()) > 0.9
    report = json.loads((folder / "scan_prediction.json").read_text())
    (said,), others = report["objects"], tuple(a for a in range(3) if a != axis)
    present = np.flatnonzero(found.any(others))
    assert said["extent"] == [present[0], present[-1]] and said["slice"] == k and report.get("axis", 2) == axis


def test_a_mask_of_one_slice_is_followed_and_a_background_click_stops_it(scan, folder):
    path, organ = scan
    drawn = np.zeros(organ.shape, np.uint8)
    drawn[..., 12] = organ[..., 12]
    write_nifti(folder / "drawn.nii.gz", drawn, AFFINE)
    settings = {"ckpt_path": "models/efficient_sam_vitt_base.pth", "dataset_dir": path, "output_dir": folder}
    result = run_warm("inferring", SPREAD, mask=folder / "drawn.nii.gz", points="[[2,2,15,0]]", **settings)
    assert result.code == 0, result.err
    found = np.asarray(nibabel.load(folder / "scan_mask.nii.gz").dataobj) == 1
    assert (found[..., 12] == organ[..., 12]).all() and found[..., 14].any() and not found[..., 15:].any()
    assert 2 * (found & organ)[..., :15].sum() / (found.sum() + organ[..., :15].sum()) > 0.9


def test_nothing_to_start_from_is_said(scan, folder):
    given = {"ckpt_path": "models/efficient_sam_vitt_base.pth", "dataset_dir": scan[0], "output_dir": folder}
    result = run_warm("inferring", SPREAD, **given)
    assert result.code == 1 and "give --points or --boxes, or a --mask of some slices" in result.err


def test_probabilities_are_refused(scan, folder):
    given = {"ckpt_path": "models/efficient_sam_vitt_base.pth", "dataset_dir": scan[0], "output_dir": folder}
    result = run_warm("inferring", SPREAD, points="[[45,38,1]]", slice=12, output_probability=True, **given)
    assert result.code == 1
    assert result.errors == ["error: spreading gives masks and no probabilities: leave output_probability out"]


def test_a_mistyped_setting_is_refused(scan, folder):
    result = run_warm("inferring", SPREAD, dataset_dir=scan[0], output_dir=folder, least_iuo=0.5)
    assert result.code == 1 and result.errors == ["error: --least_iuo is not a setting: did you mean --least_iou?"]
