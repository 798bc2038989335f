# SPDX-License-Identifier: Apache-2.0
"""Lists of data sets: each layout gives its pairs and its split, and what is no data set is refused in one line."""

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from scripts.data import (
    ObjectDataset,
    datalists,
    decathlon_datalist,
    find_datalist,
    folder_datalist,
    isic_datalist,
    make_sample,
    pick_split,
)
from scripts.errors import InputError
from tests.files import write_nifti, write_picture


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def folder_of(root, count):
    return touch(root, *(f"{kind}/{i:03d}.png" for kind in ("images", "labels") for i in range(count)))


def relative(pairs, root):
    return [tuple(str(Path(pair[key]).relative_to(root)) for key in ("image", "label")) for pair in pairs]


def everything(datalist, root):
    return sorted(relative(datalist["training"] + datalist["validation"], root))


def refused(function, *arguments, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- images/ and labels/


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.png", "a.png"),
        ("a.jpg", "a.png"),
        ("a.png", "a_mask.png"),
        ("a.png", "a_label.tif"),
        ("a.png", "a_seg.nii.gz"),
        ("a.dcm", "a_Segmentation.PNG"),
        ("a.v2.nii.gz", "a.v2.nii"),
        ("a_mask.png", "a_mask_mask.png"),
        ("a.NRRD", "a.mha"),
    ],
)
def test_folder_pairs_by_stem_whatever_the_suffix(tmp_path, image, label):
    root = touch(tmp_path, f"images/{image}", f"labels/{label}")
    assert relative(folder_datalist(root)["training"], root) == [(f"images/{image}", f"labels/{label}")]


def test_folder_reports_files_without_a_partner_and_leaves_out_hidden_ones(tmp_path, caplog):
    root = touch(
        tmp_path, "images/a.png", "images/b.png", "images/.c.png", "images/notes.txt", "labels/a.png", "labels/.c.png"
    )
    with caplog.at_level(logging.WARNING):
        assert everything(folder_datalist(root), root) == [("images/a.png", "labels/a.png")]
    assert "left out 1 files without a partner of the same stem: b" in caplog.text


def test_folder_with_all_partners_warns_of_nothing(tmp_path, caplog):
    folder_datalist(folder_of(tmp_path, 3))
    assert not caplog.records


@pytest.mark.parametrize("names", [("images/a.png", "images/a.jpg"), ("labels/a.png", "labels/a_mask.png")])
def test_folder_refuses_two_files_of_one_stem(tmp_path, names):
    root = touch(tmp_path, "images/a.png", "labels/a.png", *names)
    message = refused(folder_datalist, root, match="same stem: rename one")
    assert all(str(root / name) in message for name in names)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["images/a.png", "labels/b.png"], "no file in images/ has the stem"),
        (["images/a.png"], "labels is not a folder"),
        (["labels/a.png"], "images is not a folder"),
    ],
)
def test_folder_that_pairs_nothing_is_refused(tmp_path, names, match):
    assert str(tmp_path) in refused(folder_datalist, touch(tmp_path, *names), match=match)


# --- the split


@pytest.mark.parametrize(
    ("count", "fraction", "held"),
    [(10, 0.2, 2), (10, 0.25, 2), (10, 0.0, 0), (10, 0.01, 1), (10, 0.99, 9), (2, 0.2, 1), (2, 0.9, 1), (1, 0.5, 0)],
)
def test_split_is_disjoint_complete_and_of_the_size_asked_for(tmp_path, count, fraction, held):
    root = folder_of(tmp_path, count)
    datalist = folder_datalist(root, fraction)
    assert (len(datalist["training"]), len(datalist["validation"])) == (count - held, held)
    assert everything(datalist, root) == [(f"images/{i:03d}.png", f"labels/{i:03d}.png") for i in range(count)]


def test_split_is_random_but_the_same_for_one_seed(tmp_path):
    root = folder_of(tmp_path, 30)
    splits = [relative(folder_datalist(root, 0.3, seed)["validation"], root) for seed in (0, 0, 1)]
    assert splits[0] == splits[1]
    assert set(splits[0]) != set(splits[2])
    assert splits[0] != [(f"images/{i:03d}.png", f"labels/{i:03d}.png") for i in range(9)]


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5])
def test_split_refuses_a_fraction_that_is_none(tmp_path, fraction):
    refused(folder_datalist, folder_of(tmp_path, 3), fraction, match="val_fraction is at least 0 and below 1")


# --- ISIC


def isic_2016(root, split, count, index):
    part = f"ISBI2016_ISIC_Part1_{split}"
    lines = [",img,seg"] if index else []
    for i in range(count):
        image, label = f"{part}_Data/ISIC_{i}.jpg", f"{part}_GroundTruth/ISIC_{i}_Segmentation.png"
        touch(root, image, label)
        lines.append(f"{i},{image},{label}" if index else f"{image},{label}")
    (root / f"{part}_GroundTruth.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("index", [False, True], ids=["plain", "with-header-and-index"])
def test_isic_2016_validates_on_its_test_table(tmp_path, index):
    isic_2016(tmp_path, "Training", 3, index)
    isic_2016(tmp_path, "Test", 2, index)
    datalist = isic_datalist(tmp_path)
    part = "ISBI2016_ISIC_Part1_{split}_{kind}"
    for name, split, count in (("training", "Training", 3), ("validation", "Test", 2)):
        data, truth = part.format(split=split, kind="Data"), part.format(split=split, kind="GroundTruth")
        assert relative(datalist[name], tmp_path) == [
            (f"{data}/ISIC_{i}.jpg", f"{truth}/ISIC_{i}_Segmentation.png") for i in range(count)
        ]


def test_isic_2016_without_a_test_table_is_split(tmp_path):
    isic_2016(tmp_path, "Training", 10, True)
    datalist = isic_datalist(tmp_path, 0.3)
    assert (len(datalist["training"]), len(datalist["validation"])) == (7, 3)


def test_isic_2016_table_that_names_no_pairs_is_refused(tmp_path):
    (tmp_path / "ISBI2016_ISIC_Part1_Training_GroundTruth.csv").write_text("ISIC_0,benign\n")
    refused(isic_datalist, tmp_path, match=r"Training_GroundTruth.csv names no pairs")


def isic_later(root, split, *names, year=2018):
    data, truth = {
        2017: (f"ISIC-2017_{split}_Data", f"ISIC-2017_{split}_Part1_GroundTruth"),
        2018: (f"ISIC2018_Task1-2_{split}_Input", f"ISIC2018_Task1_{split}_GroundTruth"),
    }[year]
    for name in names:
        touch(root, f"{data}/{name}.jpg", f"{truth}/{name}_segmentation.png")
    return data, truth


@pytest.mark.parametrize("year", [2017, 2018])
def test_later_isic_validates_on_its_validation_folder_and_leaves_its_test_folder(tmp_path, year):
    data, truth = isic_later(tmp_path, "Training", "ISIC_1", "ISIC_2", year=year)
    held_data, held_truth = isic_later(tmp_path, "Validation", "ISIC_3", year=year)
    isic_later(tmp_path, "Test_v2" if year == 2017 else "Test", "ISIC_4", year=year)
    touch(tmp_path, f"{data}/ISIC_1_superpixels.png")
    datalist = isic_datalist(tmp_path)
    assert relative(datalist["training"], tmp_path) == [
        (f"{data}/{name}.jpg", f"{truth}/{name}_segmentation.png") for name in ("ISIC_1", "ISIC_2")
    ]
    assert relative(datalist["validation"], tmp_path) == [
        (f"{held_data}/ISIC_3.jpg", f"{held_truth}/ISIC_3_segmentation.png")
    ]


def test_later_isic_without_validation_masks_validates_on_its_test_folder(tmp_path):
    isic_later(tmp_path, "Training", "ISIC_1", "ISIC_2")
    data, truth = isic_later(tmp_path, "Test", "ISIC_3")
    assert relative(isic_datalist(tmp_path)["validation"], tmp_path) == [
        (f"{data}/ISIC_3.jpg", f"{truth}/ISIC_3_segmentation.png")
    ]


def test_later_isic_with_training_images_alone_is_split_and_reports_masks_without_an_image(tmp_path, caplog):
    _, truth = isic_later(tmp_path, "Training", *(f"ISIC_{i}" for i in range(10)))
    touch(tmp_path, f"{truth}/ISIC_99_segmentation.png")
    datalist = isic_datalist(tmp_path, 0.2)
    assert (len(datalist["training"]), len(datalist["validation"])) == (8, 2)
    assert f"{truth}/ISIC_99_segmentation.png: left out" in caplog.text


def test_isic_folder_without_masks_is_refused(tmp_path):
    refused(isic_datalist, touch(tmp_path, "ISIC2018/ISIC_1.jpg"), match=r"neither ISBI2016.* nor \*_segmentation.png")


# --- Decathlon

PAIRS = [{"image": f"imagesTr/{i}.nii.gz", "label": f"./labelsTr/{i}.nii.gz"} for i in range(10)]
RELATIVE = [(f"imagesTr/{i}.nii.gz", f"labelsTr/{i}.nii.gz") for i in range(10)]


def write_json(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["datalist.json", "dataset.json"])
@pytest.mark.parametrize("by_file", [False, True])
def test_decathlon_keeps_its_own_split_with_paths_beside_the_file(tmp_path, name, by_file):
    path = write_json(tmp_path / name, {"training": PAIRS[:8], "validation": PAIRS[8:], "test": ["imagesTs/a.nii.gz"]})
    datalist = decathlon_datalist(str(path if by_file else tmp_path))
    assert relative(datalist["training"], tmp_path) == RELATIVE[:8]
    assert relative(datalist["validation"], tmp_path) == RELATIVE[8:]


def test_decathlon_of_another_name_is_read_as_a_file(tmp_path):
    path = write_json(tmp_path / "fold_0.json", {"training": PAIRS[:1], "validation": PAIRS[1:]})
    assert len(decathlon_datalist(path)["validation"]) == 9


def test_decathlon_prefers_datalist_json(tmp_path):
    write_json(tmp_path / "dataset.json", {"training": PAIRS})
    write_json(tmp_path / "datalist.json", {"training": PAIRS[:1]})
    assert relative(decathlon_datalist(tmp_path)["training"], tmp_path) == RELATIVE[:1]


def test_decathlon_without_validation_is_split(tmp_path):
    write_json(tmp_path / "dataset.json", {"training": PAIRS, "validation": []})
    datalist = decathlon_datalist(tmp_path, 0.3, seed=1)
    assert len(datalist["validation"]) == 3
    assert everything(datalist, tmp_path) == RELATIVE


def test_decathlon_keeps_absolute_paths(tmp_path):
    write_json(tmp_path / "dataset.json", {"training": [{"image": "/data/a.png", "label": "/data/b.png"}]})
    assert decathlon_datalist(tmp_path)["training"] == [{"image": "/data/a.png", "label": "/data/b.png"}]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param("{", "is not a Decathlon list", id="cut"),
        pytest.param([1, 2], "is not a Decathlon list", id="list"),
        pytest.param({"training": [{"image": "a.png"}]}, "is not a Decathlon list .*'label'", id="item-without-label"),
        pytest.param({"training": ["a.png"]}, "is not a Decathlon list", id="plain-paths"),
        pytest.param({"training": None}, "is not a Decathlon list", id="nothing"),
        *(
            pytest.param(
                {"training": [{"image": "a.png", "label": "a.png", "prompts": prompts}]},
                r"is not a Decathlon list \(prompts are a list of \[x, y, slice, label\]",
                id=f"prompts-{prompts}",
            )
            for prompts in ("$1", [1, 2], [[1, 2, 3]], [[1, 2, 3, 9]], [["$1", 2, 3, 1]], {"a": 1}, [[1, 2, 3, True]])
        ),
        pytest.param({"train": PAIRS}, "lists no images under training, validation or test", id="other-key"),
    ],
)
def test_decathlon_file_of_another_form_is_refused_by_name(tmp_path, content, match):
    path = write_json(tmp_path / "dataset.json", content)
    assert str(path) in refused(decathlon_datalist, tmp_path, match=match)


def test_decathlon_test_list_is_a_split_where_it_has_labels(tmp_path):
    pairs = [{"image": f"{n}.png", "label": f"{n}.png"} for n in range(3)]
    content = {"training": pairs[:1], "validation": pairs[1:2], "test": [*pairs[2:], "imagesTs/9.nii.gz"]}
    write_json(tmp_path / "dataset.json", content)
    datalist = decathlon_datalist(tmp_path)
    assert relative(pick_split(datalist, "test"), tmp_path) == [("2.png", "2.png")]
    write_json(tmp_path / "dataset.json", {**content, "test": ["imagesTs/9.nii.gz"]})
    refused(
        pick_split,
        decathlon_datalist(tmp_path),
        "test",
        match="no labelled images in split 'test': it has training, val",
    )


def test_a_list_of_another_editor_and_a_path_below_home_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "dataset.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"training": PAIRS}).encode())
    assert everything(find_datalist("~", "cache"), tmp_path) == RELATIVE
    (tmp_path / "lists").mkdir()
    write_json(tmp_path / "lists" / "datalist.json", {"training": [{"image": "~/a.png", "label": "b.png"}]})
    pair = decathlon_datalist(tmp_path / "lists")["training"][0]
    assert pair == {"image": str(tmp_path / "a.png"), "label": str(tmp_path / "lists" / "b.png")}


# --- groups


def test_the_images_of_a_patient_stay_together(tmp_path):
    names = [f"p{patient}_{n}.png" for patient in range(10) for n in range(patient % 3 + 1)]
    root = touch(tmp_path, *(f"{kind}/{name}" for kind in ("images", "labels") for name in names))
    datalist = folder_datalist(root, 0.3, group_by=r"p(\d+)_")
    patients = {split: {Path(p["image"]).name.split("_")[0] for p in datalist[split]} for split in datalist}
    assert len(patients["training"]) == 7 and len(patients["validation"]) == 3
    assert not patients["training"] & patients["validation"]
    assert len(everything(datalist, root)) == len(names)
    other = folder_datalist(root, 0.3, seed=1, group_by=r"p(\d+)_")
    assert other["validation"] != datalist["validation"]


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        ("(", "is not a regular expression"),
        ("patient", "'patient' is not found in the name 000.png"),
        (r"\.png", "finds one group, '.png'"),
    ],
)
def test_a_pattern_that_tells_no_groups_is_refused(tmp_path, pattern, match):
    refused(folder_datalist, folder_of(tmp_path, 4), match=match, group_by=pattern)


def test_decathlon_file_that_is_no_text_is_refused_by_name(tmp_path):
    (tmp_path / "dataset.json").write_bytes(b"\x89PNG\xff\xfe")
    refused(decathlon_datalist, tmp_path, match=r"dataset.json is not a Decathlon list")


def test_decathlon_folder_without_a_list_is_refused(tmp_path):
    refused(decathlon_datalist, tmp_path, match=r"datalist.json does not exist")


# --- the choice


def test_layout_is_found_by_what_the_folder_holds(tmp_path):
    isic, folder, decathlon = tmp_path / "isic", tmp_path / "folder", tmp_path / "decathlon"
    isic_later(isic, "Training", "ISIC_1")
    folder_of(folder, 4)
    folder_of(decathlon, 4)
    write_json(decathlon / "dataset.json", {"training": PAIRS})
    assert (
        relative(find_datalist(str(isic), "cache")["training"], isic)[0][0]
        == "ISIC2018_Task1-2_Training_Input/ISIC_1.jpg"
    )
    assert len(find_datalist(str(folder), "cache", 0.5)["validation"]) == 2
    assert everything(find_datalist(str(decathlon), "cache"), decathlon) == RELATIVE  # a list goes before folders


def test_fraction_and_seed_reach_each_layout(tmp_path):
    root = folder_of(tmp_path, 30)
    assert find_datalist(str(root), "cache", 0.3, 5) == folder_datalist(root, 0.3, 5)
    write_json(root / "dataset.json", {"training": PAIRS})
    assert find_datalist(str(root), "cache", 0.3, 5) == decathlon_datalist(root, 0.3, 5)


@pytest.mark.parametrize("dataset_dir", [None, ""])
def test_no_folder_gives_the_sample_kept_in_the_cache(tmp_path, monkeypatch, dataset_dir):
    monkeypatch.setattr(datalists, "make_sample", partial(make_sample, count=10, size=32))
    datalist = find_datalist(dataset_dir, str(tmp_path))
    assert (len(datalist["training"]), len(datalist["validation"])) == (8, 2)
    assert all(Path(pair[key]).is_relative_to(tmp_path) for pair in datalist["training"] for key in pair)


@pytest.mark.parametrize(("name", "match"), [("absent", "is not a folder"), ("data", "has no layout that is known")])
def test_folder_of_no_layout_is_refused_by_name(tmp_path, name, match):
    touch(tmp_path, "data/a.png")
    assert str(tmp_path / name) in refused(find_datalist, str(tmp_path / name), "cache", match=match)


def volume(path, affine=None, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((6, 5, 4), np.uint8)
    array[2:4, 1:3, 1:3] = value
    return write_nifti(path, array, affine)


def test_nnunet_is_read_with_its_test_split(tmp_path):
    for part, count in (("Tr", 3), ("Ts", 1)):
        for n in range(count):
            volume(tmp_path / f"images{part}" / f"case_{n:03d}_0000.nii.gz")
            volume(tmp_path / f"labels{part}" / f"case_{n:03d}.nii.gz", value=1)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = find_datalist(str(tmp_path), str(tmp_path))
    assert [len(found[split]) for split in ("training", "validation", "test")] == [2, 1, 1]
    for pair in [*found["training"], *found["validation"], *found["test"]]:
        assert Path(pair["image"]).is_file() and Path(pair["label"]).is_file()
        assert Path(pair["image"]).name == Path(pair["label"]).name.replace(".nii.gz", "_0000.nii.gz")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"channel_names": {"0": "T1", "1": "T2"}}, r"of nnU-Net with 2 channels \(T1, T2\)"),
        ({"file_ending": ".nrrd"}, r"labelsTr holds no \*\.nrrd"),
    ],
)
def test_nnunet_that_cannot_be_read_says_why(tmp_path, changed, says):
    volume(tmp_path / "labelsTr" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "labels": {}, **changed}))
    with pytest.raises(InputError, match=says):
        find_datalist(str(tmp_path), str(tmp_path))


def test_a_folder_for_each_patient_is_read_and_files_of_one_name_stay_apart(tmp_path):
    for patient in ("p1", "p2"):
        for name in ("a", "b"):
            for part in ("images", "labels"):
                write_picture(tmp_path / part / patient / f"{name}.png", np.ones((4, 4), np.uint8))
    found = find_datalist(str(tmp_path), str(tmp_path), group_by=r"(p\d)/")
    pairs = [*found["training"], *found["validation"]]
    assert len(pairs) == 4
    assert all(pair["image"].replace("images", "labels") == pair["label"] for pair in pairs)
    for split in ("training", "validation"):  # of one patient each: their paths below their own folder say no group
        (group,) = {pair["group"] for pair in found[split]}
        assert all(f"/{group}/" in pair["image"] for pair in found[split])
        dataset = ObjectDataset(found[split], lambda item: item, cache_dir=str(tmp_path / "cache"))
        assert {json.loads(item["case"])["group"] for item in dataset.data} == {group}


def test_groups_of_a_list_that_holds_images_out_are_those_of_all(tmp_path):
    lists = {"training": ["p1", "p2"], "validation": ["p3"], "test": ["p4"]}
    content = {split: [{"image": f"{p}/a.png", "label": f"{p}/b.png"} for p in ps] for split, ps in lists.items()}
    found = decathlon_datalist(str(write_json(tmp_path / "datalist.json", content)), group_by=r"(p\d)/")
    assert {split: [pair["group"] for pair in pairs] for split, pairs in found.items()} == lists


def test_a_test_list_of_paths_that_hold_the_word_label_is_one_without_labels(tmp_path):
    content = {"training": [{"image": "a.png", "label": "b.png"}], "test": ["unlabelled/a.png"]}
    assert decathlon_datalist(str(write_json(tmp_path / "datalist.json", content)))["test"] == []


def test_a_segmentation_of_3d_slicer_pairs_by_its_name(tmp_path):
    for name in ("images/case.nrrd", "images/two.nrrd", "labels/case.seg.nrrd", "labels/two.seg.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_datalist(str(tmp_path), str(tmp_path))
    pairs = [*found["training"], *found["validation"]]
    assert sorted(Path(pair["label"]).name for pair in pairs) == ["case.seg.nrrd", "two.seg.nrrd"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["missing", "empty", "no picture"])
def test_a_broken_file_is_not_what_validates(tmp_path, seed, kind):
    for n in range(6):
        for part in ("images", "labels"):
            write_picture(tmp_path / part / f"{n}.png", np.zeros((4, 4), np.uint8))
    broken = tmp_path / "images" / "3.png"
    broken.unlink()
    if kind == "missing":
        broken.symlink_to(tmp_path / "nowhere.png")
    else:
        broken.write_bytes(b"" if kind == "empty" else b"no picture")
    found = find_datalist(str(tmp_path), str(tmp_path), seed=seed)
    assert len(found["validation"]) == 1 and "3.png" not in found["validation"][0]["image"]
    assert len(found["training"]) == 5
