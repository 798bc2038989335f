# SPDX-License-Identifier: Apache-2.0
"""The table of objects."""

import numpy as np

from scripts.io.object_table import list_objects, write_objects

LABELS = np.array([[0, 3, 3, 0], [0, 3, 0, 0], [1, 0, 0, 3]])
ENTRIES = [
    {"object": 0, "slice": 4, "points": [], "labels": [], "predicted_iou": 0.75},
    {"object": 1, "slice": 4, "points": [], "labels": [], "predicted_iou": 0.1},
    {"object": 2, "slice": 5, "points": [], "labels": [], "predicted_iou": 0.5},
]


def test_each_object_that_was_found_is_a_row():
    first, third = list_objects(LABELS, ENTRIES, 4)
    assert first == {
        "id": 1, "name": "", "slice": 4, "pixels": 1, "centre_x": 0, "centre_y": 2, "x0": 0, "y0": 2, "x1": 0, "y1": 2,
        "predicted_iou": 0.75,
    }  # fmt: skip
    assert (third["id"], third["pixels"], third["centre_x"], third["centre_y"]) == (3, 4, 1.75, 0.75)
    assert [third[key] for key in ("x0", "y0", "x1", "y1", "predicted_iou")] == [1, 0, 3, 2, None]


def test_classes_have_names_and_no_iou_of_their_own():
    assert [
        (row["name"], row["predicted_iou"]) for row in list_objects(LABELS, ENTRIES, 4, ["disc", "rim", "cup"])
    ] == [("disc", None), ("cup", None)]


def test_the_file_has_its_columns_also_where_nothing_was_found(tmp_path):
    write_objects(tmp_path / "a.csv", list_objects(np.zeros((2, 2), int), [], 0))
    header = "id,name,slice,pixels,centre_x,centre_y,x0,y0,x1,y1,predicted_iou"
    assert (tmp_path / "a.csv").read_text() == header + "\n"
    write_objects(tmp_path / "b.csv", list_objects(LABELS, ENTRIES, 4))
    assert (tmp_path / "b.csv").read_text().splitlines() == [
        header, "1,,4,1,0.0,2.0,0,2,0,2,0.75", "3,,4,4,1.75,0.75,1,0,3,2,"
    ]  # fmt: skip
