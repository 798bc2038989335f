# SPDX-License-Identifier: Apache-2.0
"""Small copies of data sets: what they hold, and what is refused."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.files import write_nifti, write_picture
from tools.pack import main


@pytest.fixture
def mixture(tmp_path):
    """Pictures of 80 x 40, one labelled beyond 8 bits, and a volume."""
    label = np.zeros((40, 80), np.uint16)
    label[10:30, 20:40], label[10:30, 50:70] = 1, 300
    for n in range(5):
        write_picture(tmp_path / "cells" / "images" / f"{n}.png", np.where(label > 0, 200, 50).astype(np.uint8))
        write_picture(tmp_path / "cells" / "labels" / f"{n}.png", label)
    for kind in ("images", "labels"):
        (tmp_path / "heads" / kind).mkdir(parents=True)
        write_nifti(tmp_path / "heads" / kind / "a.nii.gz", np.ones((6, 5, 4), np.uint8))
    parts = [{"dataset_dir": str(tmp_path / "cells"), "weight": 2}, {"dataset_dir": str(tmp_path / "heads")}]
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"mixture": parts}))
    return tmp_path / "mixture.yaml"


def test_pictures_shrink_with_their_labels_and_volumes_stay_as_they_are(mixture, tmp_path):
    packed = tmp_path / "packed"
    assert main([str(mixture), str(packed), "--longest", "40"]) == 0
    parts = yaml.safe_load((packed / "mixture.yaml").read_text())["mixture"]
    assert parts == [{"dataset_dir": f"{packed}/cells", "weight": 2}, {"dataset_dir": f"{packed}/heads"}]

    lists = json.loads((packed / "cells" / "datalist.json").read_text())
    assert [len(lists[split]) for split in ("training", "validation")] == [4, 1]
    pair = lists["training"][0]
    image, label = (Image.open(packed / "cells" / pair[key]) for key in ("image", "label"))
    assert image.size == label.size == (40, 20) and image.mode == "RGB"
    ids = np.asarray(label)
    assert np.array_equal(np.unique(ids), [0, 1, 300]) and (ids[5:15, 10:20] == 1).all()
    pixels = np.asarray(image).astype(int)
    assert np.allclose(pixels[10, 15], 200, atol=8) and np.allclose(pixels[2, 2], 50, atol=8)

    copy = json.loads((packed / "heads" / "datalist.json").read_text())["training"][0]["image"]
    assert (packed / "heads" / copy).read_bytes() == (tmp_path / "heads" / "images" / "a.nii.gz").read_bytes()


def test_a_small_picture_is_not_enlarged(mixture, tmp_path):
    assert main([str(mixture), str(tmp_path / "packed"), "--longest", "500"]) == 0
    assert Image.open(next((tmp_path / "packed" / "cells" / "images").iterdir())).size == (80, 40)


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        ("mixture: []", [], "give the data sets"),
        ("sets: 1", [], "holds no mixture"),
        (": {", [], "cannot be read as YAML"),
        (None, ["--longest", "0"], "--longest is at least 1"),
        (None, ["--quality", "0"], "--quality 1 to 100"),
    ],
)
def test_what_cannot_be_packed_is_said(mixture, tmp_path, capsys, content, options, says):
    if content is not None:
        mixture.write_text(content)
    assert main([str(mixture), str(tmp_path / "packed"), *options]) == 2
    assert says in capsys.readouterr().err


def test_a_folder_that_holds_something_is_left_alone(mixture, tmp_path, capsys):
    assert main([str(mixture), str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
