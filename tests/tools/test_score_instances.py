# SPDX-License-Identifier: Apache-2.0
"""Scores of instance maps: what matches, what the sums are, and what is said of bad folders."""

import json

import numpy as np
import pytest

from tests.files import write_picture
from tools.score_instances import main, matched_ious, measures


def maps():
    """Labels of three squares, of which a prediction hits one exactly, one by three quarters, and one not at all."""
    labels, predicted = np.zeros((2, 20, 30), np.uint8)
    labels[0:4, 0:4], labels[8:12, 8:12], labels[14:18, 20:24] = 3, 7, 9
    predicted[0:4, 0:4], predicted[8:12, 8:11], predicted[0:4, 20:28] = 1, 2, 5
    return predicted, labels


def test_pairs_above_one_half_match():
    predicted, labels = maps()
    assert sorted(matched_ious(predicted, labels)) == pytest.approx([0.75, 1.0])


@pytest.mark.parametrize("width", [2, 3])
def test_exactly_one_half_does_not_match(width):
    predicted, labels = np.zeros((2, 4, 4), np.uint8)
    labels[:, :], predicted[:, :width] = 1, 1
    assert len(matched_ious(predicted, labels)) == (width == 3)


@pytest.mark.parametrize("which", [0, 1])
def test_an_empty_map_matches_nothing(which):
    pair = list(maps())
    pair[which] = np.zeros_like(pair[which])
    assert matched_ious(*pair).size == 0


def test_a_map_without_background_matches():
    assert matched_ious(np.ones((3, 3), int), np.full((3, 3), 4)).tolist() == [1.0]


def test_measures_are_what_they_are_named_for():
    result = measures(4, 3, np.array([0.75, 1.0]))
    assert result["recall"] == 0.5
    assert result["precision"] == pytest.approx(2 / 3)
    assert result["dice"] == pytest.approx((6 / 7 + 1) / 2)
    assert result["pq"] == pytest.approx(1.75 / 3.5)


def test_measures_of_nothing_are_not_numbers():
    result = measures(0, 0, np.array([]))
    assert result["matched"] == 0
    assert all(result[name] != result[name] for name in ("recall", "precision", "dice", "pq"))
    assert measures(0, 2, np.array([]))["precision"] == 0


@pytest.fixture
def folders(tmp_path):
    """The maps above as image a, with 2.5 seconds noted, and as b with nothing predicted."""
    predicted, labels = maps()
    for name, found in (("a", predicted), ("b", np.zeros_like(predicted))):
        write_picture(tmp_path / "out" / f"{name}_mask.png", found)
        write_picture(tmp_path / "labels" / f"{name}.png", labels)
    (tmp_path / "out" / "a_prediction.json").write_text(json.dumps({"seconds": 2.5}))
    return tmp_path


def score(folder, *more):
    return main([str(folder / "out"), str(folder / "labels"), *more])


def test_table_and_json_tell_each_image_and_all(folders, capsys):
    assert score(folders, "--json", str(folders / "scores.json")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| a | 3 | 3 | 2 | 0.667 | 0.667 |")
    assert lines[3] == "| b | 3 | 0 | 0 | 0.000 | - | - | 0.000 | - |"
    written = json.loads((folders / "scores.json").read_text())
    assert [row["image"] for row in written["images"]] == ["a", "b"]
    assert written["all"]["recall"] == pytest.approx(2 / 6)
    assert written["all"]["seconds"] == 2.5
    assert written["images"][1]["precision"] is None


def without(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "more", "said"),
    [
        (without("labels/b.png"), [], "no label of b (1 of 2 missing)"),
        (lambda folder: [path.unlink() for path in (folder / "out").glob("*.png")], [], "no <name>_mask files"),
        (lambda folder: (folder / "out").rename(folder / "elsewhere"), [], "out is not a folder"),
        (lambda f: write_picture(f / "labels" / "a.png", np.zeros((20, 31), np.uint8)), [], "those of one image"),
        (lambda folder: (folder / "labels" / "a.png").write_bytes(b"no picture"), [], "a.png"),
        (lambda folder: None, ["--json", "no/such/folder/x.json"], "--json"),
    ],
)
def test_bad_input_is_one_line(folders, capsys, spoil, more, said):
    spoil(folders)
    assert score(folders, *more) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert said in errors[0]
