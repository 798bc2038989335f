# SPDX-License-Identifier: Apache-2.0
"""The sheet of drawn pictures is written as its command says."""

import sys

import numpy as np
from PIL import Image

from scripts.data.made import draw_picture
from tools.show_made import draw_sheet, main


def test_each_picture_stands_beside_its_objects(tmp_path, monkeypatch):
    sheet = draw_sheet(seed=5, rows=2, columns=1, side=256)
    assert sheet.shape == (2 * 256, 2 * 256, 3)
    for index in range(2):
        image, ids = draw_picture(5, index)
        row = sheet[256 * index :][:256]
        assert np.abs(row[:, :256].astype(int) - image).max() == 0
        assert ((row[:, 256:] > 0).any(2) == (ids > 0)).all()
    path = tmp_path / "made.jpg"
    monkeypatch.setattr(sys, "argv", ["show_made", str(path), "--rows", "1", "--columns", "2"])
    main()
    assert Image.open(path).size == (4 * 112, 112)
