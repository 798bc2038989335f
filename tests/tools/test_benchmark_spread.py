# SPDX-License-Identifier: Apache-2.0
"""The benchmark of spreading runs the real command and finds what it has made."""

import nibabel
import pytest

from tools.benchmark_spread import COLUMNS, main, make_volume


def test_the_object_is_brighter_than_all_else(tmp_path):
    truth = make_volume((32, 24, 10), tmp_path / "volume.nii.gz")
    volume = nibabel.load(tmp_path / "volume.nii.gz").get_fdata()
    assert (
        volume[truth].min() > volume[~truth].max()
        and truth.any((0, 1)).tolist() == [False] * 2 + [True] * 6 + [False] * 2
    )


@pytest.mark.slow
def test_a_row_of_the_table(capsys):
    main(["--volume", "48", "40", "6", "--threads", "1"])
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    values = dict(zip(COLUMNS, row, strict=True))
    assert values["volume"] == "48 x 40 x 6" and values["backend"] == "torch" and 1 <= int(values["slices"]) <= 6
    assert 0 <= float(values["Dice"]) <= 1 and 0 < float(values["spread, s"]) < float(values["command, s"])
    assert 0.2 < float(values["memory, GiB"]) < 4
