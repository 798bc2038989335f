# SPDX-License-Identifier: Apache-2.0
"""The data set of objects: what its items are, which pairs it leaves out, and when it looks at files again."""

import json
import logging
import os

import nibabel
import numpy as np
import pytest
from monai.transforms import Compose

from scripts.data import ObjectDataset, object_index
from scripts.errors import InputError
from scripts.io.file_state import file_state
from scripts.io.reading import LoadCheckedImaged
from scripts.prompts.case_id import UNION_OBJECT
from scripts.prompts.class_layout import ClassLayout
from scripts.transforms import UprightSliced
from tests.files import write_dicom, write_nifti, write_picture, write_series

HEIGHT, WIDTH = 6, 9
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def label_with(*ids, dtype=np.uint8, shape=(HEIGHT, WIDTH)):
    """A label on which each id has some pixels of its own."""
    label = np.zeros(shape, dtype)
    for n, i in enumerate(ids):
        label.flat[2 * n : 2 * n + 2] = i
    return label


def pair(folder, name, label, image=IMAGE):
    return {
        "image": str(write_picture(folder / "images" / f"{name}.png", image)),
        "label": str(write_picture(folder / "labels" / f"{name}.png", label)),
    }


def volume_pair(folder, name, label):
    image = np.random.default_rng(0).integers(0, 999, label.shape).astype(np.int16)
    return {
        "image": str(write_nifti(folder / f"{name}_image.nii.gz", image)),
        "label": str(write_nifti(folder / f"{name}_label.nii.gz", label)),
    }


@pytest.fixture
def listed(tmp_path):
    """List the items of data without loading them, with an index of their own."""

    def listed(data, **options):
        dataset = ObjectDataset(data, lambda item: item, cache_dir=str(tmp_path / "cache"), **options)
        return [dict(dataset[i]) for i in range(len(dataset))]

    return listed


def found(items):
    return [(os.path.basename(item["image"]), item["slice"], item["objects"]) for item in items]


def test_each_id_of_each_label_is_an_item(tmp_path, listed):
    items = listed([pair(tmp_path, "a", label_with(3, 1)), pair(tmp_path, "b", label_with(255))])
    assert found(items) == [("a.png", 0, [[1]]), ("a.png", 0, [[3]]), ("b.png", 0, [[255]])]


def test_case_names_the_image_the_slice_the_objects_and_their_areas(tmp_path, listed):
    label = label_with(3, 7)
    label[5, 4:9] = 7
    (item,) = listed([pair(tmp_path, "a", label)], objects_per_item=None)
    assert json.loads(item["case"]) == {"image": "a.png", "slice": 0, "objects": ["3", "7"], "areas": [2, 7]}


def test_area_of_a_class_is_that_of_all_its_ids_on_the_slice(tmp_path, listed):
    items = listed([pair(tmp_path, "a", label_with(1, 2, 5))], classes={"cell": [1, 2, 9], "nucleus": [2]})
    assert [json.loads(item["case"])["areas"] for item in items] == [[4], [2]]


def test_volume_has_items_for_each_slice_that_holds_an_object(tmp_path, listed):
    label = np.zeros((WIDTH, HEIGHT, 4), np.uint8)
    label[2, 3, 1], label[4, 5, 1], label[6, 1, 3] = 1, 2, 2
    items = listed([volume_pair(tmp_path, "liver", label)])
    assert found(items) == [("liver_image.nii.gz", k, [[i]]) for k, i in ((1, 1), (1, 2), (3, 2))]
    assert [json.loads(item["case"])["slice"] for item in items] == [1, 1, 3]


def test_instance_ids_of_16_bits_stay_apart(tmp_path, listed):
    items = listed([pair(tmp_path, "cells", label_with(1, 257, 513, 40000, dtype=np.uint16))])
    assert [item["objects"] for item in items] == [[[1]], [[257]], [[513]], [[40000]]]


def test_dicom_image_may_have_a_picture_for_its_label(tmp_path, listed):
    data = pair(tmp_path, "a", label_with(1))
    data["image"] = str(write_dicom(tmp_path / "a.dcm", IMAGE.astype(np.uint16)))
    assert found(listed([data])) == [("a.dcm", 0, [[1]])]


def test_classes_name_sets_of_ids_and_may_hold_each_other(tmp_path, listed):
    classes = {"cell": [1, 2], "nucleus": [2], "vessel": [7]}
    items = listed([pair(tmp_path, "a", label_with(1, 2, 5)), pair(tmp_path, "b", label_with(1))], classes=classes)
    assert found(items) == [("a.png", 0, [[1, 2]]), ("a.png", 0, [[2]]), ("b.png", 0, [[1, 2]])]
    assert [json.loads(item["case"])["objects"] for item in items] == [["cell"], ["nucleus"], ["cell"]]


@pytest.mark.parametrize(("per_item", "groups"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (16, [5]), (None, [5])])
def test_objects_of_one_slice_share_items_up_to_a_number(tmp_path, listed, per_item, groups):
    items = listed([pair(tmp_path, "a", label_with(1, 2, 3, 4, 5))], objects_per_item=per_item)
    assert [len(item["objects"]) for item in items] == groups
    for key in ("objects", "areas"):
        assert [len(json.loads(item["case"])[key]) for item in items] == groups
    assert [i for item in items for ids in item["objects"] for i in ids] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("per_item", [16, None])
def test_objects_of_different_slices_never_share_an_item(tmp_path, listed, per_item):
    label = np.zeros((WIDTH, HEIGHT, 2), np.uint8)
    label[2, 3, 0], label[4, 5, 1] = 1, 1
    items = listed([volume_pair(tmp_path, "liver", label)], objects_per_item=per_item)
    assert [(item["slice"], item["objects"]) for item in items] == [(0, [[1]]), (1, [[1]])]


@pytest.mark.parametrize("per_item", [1, None])
def test_everything_on_a_slice_is_one_more_item(tmp_path, listed, per_item):
    label = np.zeros((WIDTH, HEIGHT, 3), np.uint8)
    label[2, 3, 0], label[4, 5, 0], label[6, 1, 2] = 1, 2, 2
    items = listed([volume_pair(tmp_path, "liver", label)], objects_per_item=per_item, whole=True)
    whole = [item for item in items if json.loads(item["case"])["objects"] == [UNION_OBJECT]]
    assert [(item["slice"], item["objects"]) for item in whole] == [(0, [[1, 2]]), (2, [[2]])]
    assert [json.loads(item["case"])["areas"] for item in whole] == [[2], [1]]
    others = [item for item in items if item not in whole]
    assert others == listed([volume_pair(tmp_path, "liver", label)], objects_per_item=per_item)


def test_everything_is_what_the_classes_name_and_no_more(tmp_path, listed):
    data = [pair(tmp_path, "a", label_with(1, 2, 5)), pair(tmp_path, "b", label_with(5))]
    items = listed(data, classes={"cell": [1, 2], "nucleus": [2]}, objects_per_item=None, whole=True)
    assert found(items) == [("a.png", 0, [[1, 2], [2]]), ("a.png", 0, [[1, 2]])]
    assert json.loads(items[1]["case"])["areas"] == [4]


def test_classes_asked_for_together_are_all_in_every_item(tmp_path, listed):
    classes = {"cell": [1, 2], "nucleus": [2]}
    items = listed([pair(tmp_path, "a", label_with(1))], layout=ClassLayout(classes), objects_per_item=None)
    assert found(items) == [("a.png", 0, [[1, 2], [2]])]
    assert json.loads(items[0]["case"])["areas"] == [2, 0]


@pytest.mark.parametrize("name", ["everything", "small", "medium", "large"])
@pytest.mark.parametrize("of_pair", [False, True])
def test_a_class_with_a_name_that_tables_have_already_is_refused(tmp_path, listed, name, of_pair):
    one, classes = pair(tmp_path, "a", label_with(1)), {name: [1]}
    with pytest.raises(InputError, match=f"cannot be called '{name}'"):
        listed([{**one, "classes": classes}]) if of_pair else listed([one], classes=classes)


@pytest.mark.parametrize("whole", [False, True])
def test_mean_diameter_is_that_of_a_disc_as_large_as_the_mean_object(tmp_path, whole):
    first, second = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    first[:3, :5], second[:2, :2], second[4, 4:7] = 1, 1, 2  # 15, 4 and 3 pixels
    data = [pair(tmp_path, "a", first), pair(tmp_path, "b", second)]
    dataset = ObjectDataset(data, lambda item: item, objects_per_item=2, whole=whole, cache_dir=str(tmp_path / "cache"))
    assert np.pi * (dataset.mean_diameter() / 2) ** 2 == pytest.approx(22 / 3)


def test_mean_diameter_of_no_objects_is_none_at_all(tmp_path):
    assert ObjectDataset([], lambda item: item, cache_dir=str(tmp_path)).mean_diameter() == 0


# --- pairs that cannot be used


def of_other_size(folder):
    return pair(folder, "bad", label_with(1, shape=(WIDTH, HEIGHT)))


def with_empty_label(folder):
    return pair(folder, "bad", label_with())


def with_missing_image(folder):
    return {**pair(folder, "bad", label_with(1)), "image": str(folder / "images" / "bad_gone.png")}


def with_missing_label(folder):
    return {**pair(folder, "bad", label_with(1)), "label": str(folder / "labels" / "bad_gone.png")}


def with_unreadable_image(folder):
    data = pair(folder, "bad", label_with(1))
    (folder / "images" / "bad.png").write_text("no image")
    return data


def with_colour_label(folder):
    return pair(folder, "bad", np.random.default_rng(0).integers(0, 9, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def with_nan(folder):
    data = pair(folder, "bad", label_with(1))
    image = IMAGE.astype(np.float32)
    image[2, 3] = np.nan
    return {**data, "image": str(write_picture(folder / "images" / "bad.tif", image))}


def with_other_depth(folder):
    data = volume_pair(folder, "bad", np.ones((4, 5, 3), np.uint8))
    return {**data, "label": volume_pair(folder, "bad_other", np.ones((4, 5, 2), np.uint8))["label"]}


BAD = {
    of_other_size: r"bad.png is 9 x 6 but its label .*bad.png is 6 x 9",
    with_other_depth: r"is 4 x 5 x 3 but its label .* is 4 x 5 x 2",
    with_empty_label: r"labels/bad.png is empty",
    with_missing_image: r"images/bad_gone.png does not exist",
    with_missing_label: r"labels/bad_gone.png does not exist",
    with_unreadable_image: r"images/bad.png cannot be read as an image",
    with_colour_label: r"labels/bad.png is a colour picture",
    with_nan: r"images/bad.tif holds 1 pixels that are NaN",
}


@pytest.mark.parametrize(("make", "reason"), BAD.items(), ids=[make.__name__ for make in BAD])
def test_bad_pair_is_left_out_by_name_and_the_rest_are_kept(tmp_path, listed, caplog, make, reason):
    good = [pair(tmp_path, name, label_with(1)) for name in ("a", "b")]
    with caplog.at_level(logging.INFO):
        items = listed([good[0], make(tmp_path), good[1]])
    assert [item["image"] for item in items] == [good[0]["image"], good[1]["image"]]
    warnings = [record.getMessage() for record in caplog.records if record.name == "scripts.data.object_dataset"]
    assert len(warnings) == 2
    assert warnings[0].startswith("left out: ")
    assert "2 objects on 2 items of 2 images, 1 images left out" in warnings[1]
    with pytest.raises(InputError, match=reason):
        raise InputError(warnings[0])


@pytest.mark.parametrize(("make", "reason"), BAD.items(), ids=[make.__name__ for make in BAD])
def test_single_bad_pair_fails_with_its_own_sentence(tmp_path, listed, make, reason):
    with pytest.raises(InputError, match=reason) as caught:
        listed([make(tmp_path)])
    assert "\n" not in str(caught.value)


def test_several_pairs_of_which_none_is_usable_fail(tmp_path, listed):
    with pytest.raises(InputError, match="no usable object in 2 images"):
        listed([with_missing_image(tmp_path), with_missing_label(tmp_path)])


def test_classes_that_no_label_has_fail_by_name(tmp_path, listed):
    with pytest.raises(InputError, match=r"no usable object of the classes .*'vessel': \[7\].* in 1 images"):
        listed([pair(tmp_path, "a", label_with(1))], classes={"vessel": [7]})


def test_empty_list_is_an_empty_data_set(listed):
    assert listed([]) == []


# --- the index


@pytest.fixture
def reads(monkeypatch):
    """Count the files that are read."""
    read, load = [], LoadCheckedImaged.load
    monkeypatch.setattr(LoadCheckedImaged, "load", lambda self, path: read.append(path.name) or load(self, path))
    return read


def test_second_data_set_of_the_same_files_reads_none_again(tmp_path, listed, reads):
    data = [pair(tmp_path, "a", label_with(1, 2))]
    first = listed(data)
    assert reads == ["a.png", "a.png"]
    reads.clear()
    assert listed(data) == first
    assert reads == []


def test_what_could_not_be_read_once_is_tried_again_by_itself(tmp_path, listed, reads, monkeypatch):
    """A share that was away for a moment, or a package that was not there, left out images for good."""
    data = [pair(tmp_path, "a", label_with(1)), pair(tmp_path, "b", label_with(1))]

    def load(self, path):
        if path.name == "b.png":
            raise InputError(f"{path} cannot be read as an image: Stale file handle")
        return LoadCheckedImaged.load(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(object_index, "LoadCheckedImaged", type("Away", (LoadCheckedImaged,), {"load": load}))
        assert len(listed(data)) == 1
    reads.clear()
    assert len(listed(data)) == 2
    assert set(reads) == {"b.png"}
    reads.clear()
    assert len(listed(data)) == 2
    assert reads == []


def test_a_slice_that_is_written_over_in_its_folder_is_read_again(tmp_path, listed, reads):
    """Then the folder's own time stays what it was."""
    (tmp_path / "series").mkdir()
    image = write_series(tmp_path / "series", np.arange(5 * 6 * 3, dtype=np.int16).reshape(3, 5, 6))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    label = write_nifti(tmp_path / "a.nii.gz", np.ones((6, 5, 3), np.uint8), affine)
    data = [{"image": str(image), "label": str(label)}]
    assert len(listed(data)) == 3
    before = os.stat(image).st_mtime_ns
    with sorted(image.iterdir())[1].open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    assert os.stat(image).st_mtime_ns == before
    reads.clear()
    listed(data)
    assert set(reads) == {"series", "a.nii.gz"}


def test_the_numbers_beside_a_header_are_a_part_of_its_state(tmp_path):
    (tmp_path / "a.mhd").write_text("header")
    (tmp_path / "a.raw").write_text("numbers")
    state = file_state(tmp_path / "a.mhd")
    os.utime(tmp_path / "a.raw", (5, 5))
    assert file_state(tmp_path / "a.mhd") != state


def test_index_that_another_version_wrote_is_not_read(tmp_path, listed, reads, monkeypatch):
    data = [pair(tmp_path, "a", label_with(1, 2))]
    monkeypatch.setattr(object_index, "INDEX_VERSION", object_index.INDEX_VERSION - 1)
    first = listed(data)
    (old,) = (tmp_path / "cache" / "objects").iterdir()
    old.write_text("[]")
    monkeypatch.undo()
    assert listed(data) == first


def test_index_is_kept_whole_or_not_at_all(tmp_path, listed):
    listed([pair(tmp_path, "a", label_with(1, 2))])
    (index,) = (tmp_path / "cache" / "objects").iterdir()
    assert index.suffix == ".json"
    assert json.loads(index.read_text()) == [[[0, [[1, 2], [2, 2]]]]]  # of each pair's slices, the pixels of each id


@pytest.mark.parametrize(
    "options",
    [{"classes": {"cell": [1, 2]}}, {"objects_per_item": 2}, {"objects_per_item": None}],
    ids=["classes", "two-per-item", "no-limit"],
)
def test_index_serves_other_settings(tmp_path, listed, reads, options):
    data = [pair(tmp_path, "a", label_with(1, 2))]
    listed(data)
    reads.clear()
    assert len(listed(data, **options)) == 1
    assert reads == []


def test_warnings_come_each_time(tmp_path, listed, caplog):
    data = [pair(tmp_path, "a", label_with(1)), with_empty_label(tmp_path)]
    listed(data)
    caplog.clear()
    listed(data)
    assert "labels/bad.png is empty" in caplog.text


@pytest.mark.parametrize("changed", ["image", "label"])
def test_changed_file_is_read_again(tmp_path, listed, reads, changed):
    data = [pair(tmp_path, "a", label_with(1))]
    listed(data)
    reads.clear()
    os.utime(data[0][changed], (1, 1))
    listed(data)
    assert reads == ["a.png", "a.png"]


def test_changed_label_changes_the_items(tmp_path, listed):
    data = [pair(tmp_path, "a", label_with(1))]
    listed(data)
    pair(tmp_path, "a", label_with(1, 2, 3))
    assert len(listed(data)) == 3


def test_file_that_was_missing_is_found_when_it_is_there(tmp_path, listed):
    good, late = pair(tmp_path, "a", label_with(1)), with_missing_label(tmp_path)
    assert len(listed([good, late])) == 1
    write_picture(tmp_path / "labels" / "bad_gone.png", label_with(1))
    assert len(listed([good, late])) == 2


# --- items in memory


@pytest.mark.parametrize(("rate", "again"), [(0.0, 4), (1.0, 0)])
def test_cache_rate_keeps_loaded_items_in_memory(tmp_path, reads, rate, again):
    transform = Compose([LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True)])
    data = [pair(tmp_path, name, label_with(1)) for name in "ab"]
    dataset = ObjectDataset(data, transform, cache_dir=str(tmp_path / "cache"), cache_rate=rate)
    reads.clear()
    for i in range(2):
        np.testing.assert_array_equal(dataset[i]["image"][0].T, IMAGE)
    assert len(reads) == again


def test_a_label_in_another_order_of_axes_is_read_in_its_place_and_one_that_lies_elsewhere_is_left_out(
    tmp_path, listed, caplog
):
    affine = np.diag([2.0, 2, 5, 1])
    label = np.zeros((5, 6, 4), np.uint8)
    label[3, 1, 2] = 1
    image = np.random.default_rng(0).integers(0, 999, label.shape).astype(np.int16)
    turned = nibabel.Nifti1Image(label, affine).as_reoriented([[2, -1], [0, 1], [1, -1]])
    data = [
        {
            "image": str(write_nifti(tmp_path / f"{name}_image.nii.gz", image, affine)),
            "label": str(write_nifti(tmp_path / f"{name}_label.nii.gz", np.asarray(array), of_label)),
        }
        for name, array, of_label in (
            ("turned", turned.dataobj, turned.affine),
            ("elsewhere", label, np.array([[2.0, 0, 0, 4], [0, 2, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]])),
        )
    ]
    items = listed(data)
    assert found(items) == [("turned_image.nii.gz", 2, [[1]])]
    assert "elsewhere_image.nii.gz and its label" in caplog.text and "lie differently in space" in caplog.text
    loaded = Compose([LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True), UprightSliced()])(items[0])
    assert np.argwhere(loaded["label"][0].numpy()).tolist() == [[1, 3]]  # (row, column) is (y, x)


def test_a_volume_is_one_item_with_all_its_objects(tmp_path, listed):
    label = np.zeros((4, 5, 6), np.uint8)
    label[0, 0, 1:4], label[1, 1:3, 3] = 1, 2
    data = [volume_pair(tmp_path, "scan", label), pair(tmp_path, "picture", label_with(1))]
    (item,) = listed(data, objects_per_item=None, volumes=True)
    assert item["slice"] is None and item["objects"] == [[1], [2]]
    named = {"image": "scan_image.nii.gz", "slice": None, "objects": ["1", "2"], "areas": [3, 2]}
    assert json.loads(item["case"]) == named


def test_a_list_without_volumes_is_refused_where_they_are_asked_for(tmp_path, listed):
    with pytest.raises(InputError, match="is no volume with objects on its slices"):
        listed([pair(tmp_path, "picture", label_with(1))], volumes=True)


def test_slices_where_objects_have_ended_are_listed_with_their_neighbours(tmp_path, listed):
    label = np.zeros((4, 5, 6), np.uint8)
    label[0, 0, 1:4], label[1, 1:3, 3:] = 1, 2
    data = [volume_pair(tmp_path, "scan", label), pair(tmp_path, "picture", label_with(1))]
    items = listed(data, objects_per_item=None, neighbours=True)
    ends = {item["slice"]: item["objects"] for item in items if item.get("ends")}
    assert ends == {0: [[1]], 2: [[2]], 4: [[1]]}
    assert [item["slice"] for item in items if not item.get("ends")] == [1, 2, 3, 4, 5, 0]
    assert [bool(item.get("neighbours")) for item in items] == [True] * 8 + [False]
    dataset = ObjectDataset(data, lambda item: item, cache_dir=str(tmp_path / "cache"), neighbours=True)
    plain = ObjectDataset(data, lambda item: item, cache_dir=str(tmp_path / "cache"))
    assert dataset.mean_diameter() == plain.mean_diameter()
