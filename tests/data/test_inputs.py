# SPDX-License-Identifier: Apache-2.0
"""Images to predict on: every form of input is listed, names are unique, and a bad image does not stop the others."""

import json
import logging
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Compose

from scripts.data import InputDataset, InputLoader, datalists, find_inputs, make_sample
from scripts.errors import InputError
from scripts.transforms import LoadCheckedImaged, RequestPromptsd
from tests.files import write_nifti, write_picture

GREY = np.zeros((4, 6), np.uint8)


def write_json(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        find_inputs(str(path), "cache")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_file_is_one_input(tmp_path):
    path = str(write_picture(tmp_path / "lesion.1.png", GREY))
    assert find_inputs(path, "cache") == [{"image": path, "name": "lesion.1"}]


def test_folder_gives_its_images_in_order_and_nothing_else(tmp_path):
    for name in ("b.png", "a.nii.gz", "C.DCM", ".hidden.png", "notes.txt", "list.json"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    items = find_inputs(str(tmp_path), "cache")
    assert [(Path(item["image"]).name, item["name"]) for item in items] == [
        ("C.DCM", "C"),
        ("a.nii.gz", "a"),
        ("b.png", "b"),
    ]


def test_nothing_gives_the_validation_images_of_the_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(datalists, "make_sample", partial(make_sample, count=10, size=32))
    assert [item["name"] for item in find_inputs(None, str(tmp_path))] == ["lesion_008", "lesion_009"]


@pytest.mark.parametrize(
    "content",
    [
        ["a.png", "sub/b.png"],
        [{"image": "a.png"}, {"image": "sub/b.png"}],
        {"testing": ["a.png", "sub/b.png"], "validation": [{"image": "c.png"}]},
        {"test": ["a.png", "sub/b.png"], "validation": [{"image": "c.png"}]},
        {
            "training": [{"image": "c.png"}],
            "validation": [{"image": "a.png", "label": "l.png"}, {"image": "sub/b.png"}],
        },
    ],
    ids=["paths", "items", "decathlon-testing", "decathlon-test", "decathlon-validation"],
)
def test_list_gives_its_images_beside_the_file(tmp_path, content):
    items = find_inputs(write_json(tmp_path / "list.json", content), "cache")
    assert items == [
        {"image": str(tmp_path / "a.png"), "name": "a"},
        {"image": str(tmp_path / "sub" / "b.png"), "name": "b"},
    ]


def test_list_carries_prompts_and_absolute_paths(tmp_path):
    item = {"image": "/data/a.nii.gz", "points": [[1, 2, 1]], "boxes": [[0, 0, 3, 3]], "slice": 4, "label": "x"}
    (found,) = find_inputs(write_json(tmp_path / "list.json", [item]), "cache")
    assert found == {
        "image": "/data/a.nii.gz", "points": [[1, 2, 1]], "boxes": [[0, 0, 3, 3]], "slice": 4, "name": "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param("{", "is not JSON", id="cut"),
        pytest.param([], "lists no images", id="empty"),
        pytest.param({}, "lists no images", id="empty-decathlon"),
        pytest.param(5, "lists no images", id="number"),
        pytest.param("null", "lists no images", id="null"),
        pytest.param({"testing": 5}, "lists no images", id="number-in-decathlon"),
        pytest.param({"testing": "a.png"}, "lists no images", id="text-in-decathlon"),
        pytest.param([{"points": [[1, 2, 1]]}], "lists no images", id="item-without-image"),
        pytest.param([{"image": 5}], "lists no images", id="image-is-a-number"),
        pytest.param(["a.png", 5], "lists no images", id="one-item-is-a-number"),
    ],
)
def test_list_of_another_form_is_refused_by_name(tmp_path, content, match):
    refused(write_json(tmp_path / "list.json", content), match)


def test_list_that_is_no_text_is_refused_by_name(tmp_path):
    (tmp_path / "list.json").write_bytes(b"\x89PNG\xff\xfe")
    refused(tmp_path / "list.json", "is not JSON")


@pytest.mark.parametrize(
    ("name", "match"),
    [("a.png", "does not exist"), ("a.json", "does not exist"), ("empty", "holds no images: known are .png")],
)
def test_path_without_images_is_refused_by_name(tmp_path, name, match):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / name, match)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.png", "a.jpg", "b.png"], ["a", "a_jpg", "b"]),
        (["x/a.png", "y/a.png", "z/a.png"], ["a", "a_png", "a_2"]),
        (["a.png", "x/a.png", "a_png.png"], ["a", "a_png", "a_png_png"]),
        (["a.nii.gz", "a.nii", "a.nrrd"], ["a", "a_nii", "a_nrrd"]),
        (["a.png"] * 4, ["a", "a_png", "a_2", "a_3"]),
    ],
)
def test_outputs_of_images_of_one_stem_get_names_of_their_own(tmp_path, paths, names):
    items = find_inputs(write_json(tmp_path / "list.json", paths), "cache")
    assert [item["name"] for item in items] == names


# --- one after another

PREPARE = Compose([LoadCheckedImaged("image"), RequestPromptsd()])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_items_among_fifty_are_reported_by_name_and_the_others_are_done(tmp_path, caplog, num_workers):
    items = [{"image": str(write_picture(tmp_path / f"{i:02d}.png", GREY)), "name": f"{i:02d}"} for i in range(50)]
    Path(items[17]["image"]).write_text("no image")
    items[30]["points"] = [[99, 0, 1]]
    loader = InputLoader(InputDataset(items, PREPARE), num_workers)
    with caplog.at_level(logging.ERROR):
        done = sorted(name for item in loader for name in item["name"])
    assert done == [f"{i:02d}" for i in range(50) if i not in (17, 30)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    with pytest.raises(InputError, match="2 of 50 images failed, the others are done: ") as caught:
        loader.finish()
    for text in (caplog.text, str(caught.value)):
        assert f"{items[17]['image']} cannot be read as an image" in text
        assert f"{items[30]['image']}: point (99, 0) lies outside" in text
    assert "\n" not in str(caught.value)


def test_single_bad_item_fails_with_its_own_sentence(tmp_path):
    loader = InputLoader(InputDataset([{"image": str(tmp_path / "gone.png")}], PREPARE))
    assert list(loader) == []
    with pytest.raises(InputError) as caught:
        loader.finish()
    assert str(caught.value) == f"{tmp_path / 'gone.png'} does not exist"


def test_finish_is_quiet_when_all_went_well_this_time(tmp_path):
    path = tmp_path / "a.png"
    loader = InputLoader(InputDataset([{"image": str(path)}], PREPARE))
    assert list(loader) == []
    write_picture(path, GREY)
    assert len(list(loader)) == 1
    loader.finish()


@pytest.mark.parametrize("wrapped", [False, True])
def test_error_that_is_not_the_users_is_raised_as_it_is(wrapped):
    def broken(item):
        raise KeyError("a fault of the code")

    loader = InputLoader(InputDataset([{"image": "a.png"}], Compose([broken]) if wrapped else broken))
    with pytest.raises(RuntimeError if wrapped else KeyError) as caught:
        list(loader)
    assert not isinstance(caught.value, InputError)
    assert loader.problems == []


def test_items_of_one_volume_keep_prompts_of_their_own(tmp_path):
    path = str(write_nifti(tmp_path / "a.nii", np.ones((4, 5, 3), np.int16)))
    items = [{"image": path, "points": [[x, 1, x, 1]]} for x in range(3)]
    prepared = list(InputDataset(items, PREPARE))
    entries = [json.loads(item["image"].meta["prompts"]) for item in prepared]
    assert [(entry["slice"], entry["points"]) for (entry,) in entries] == [(x, [[x, 1]]) for x in range(3)]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"image": "a.png", "point": [[1, 2, 1]]}, "an item has point, which nothing reads: did you mean points?"),
        ({"image": "a.png", "colour": "red"}, "an item has colour, which nothing reads: known are image, points"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(tmp_path, item, says):
    (tmp_path / "list.json").write_text(json.dumps([item]))
    with pytest.raises(InputError, match=re.escape(says)):
        find_inputs(str(tmp_path / "list.json"), str(tmp_path))
