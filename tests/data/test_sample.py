# SPDX-License-Identifier: Apache-2.0
"""The built-in sample data set: what it holds, that it is the same every time, and that it is never half there."""

from __future__ import annotations

import json
import logging
import multiprocessing

import numpy as np
import pytest
from PIL import Image

from scripts.data import sample
from scripts.data.sample import make_sample
from scripts.errors import InputError

SMALL = {"count": 6, "size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("shared") / "lesions", **SMALL)


def pairs_of(folder):
    datalist = json.loads((folder / "datalist.json").read_text())
    return [(folder / pair["image"], folder / pair["label"]) for pair in datalist["training"] + datalist["validation"]]


def arrays_of(folder):
    return [np.asarray(Image.open(path)) for pair in pairs_of(folder) for path in pair]


def times_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def assert_same_arrays(one, other):
    for a, b in zip(arrays_of(one), arrays_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_datalist_names_every_file_and_keeps_the_last_fifth_for_validation(tmp_path):
    folder = make_sample(tmp_path / "new" / "lesions", count=12, size=32)
    datalist = json.loads((folder / "datalist.json").read_text())
    assert folder == (tmp_path / "new" / "lesions").resolve()
    assert datalist["labels"] == {"0": "background", "255": "lesion with its reddened border"}
    assert [pair["image"] for pair in datalist["validation"]] == ["images/lesion_010.png", "images/lesion_011.png"]
    named = {path for pair in pairs_of(folder) for path in pair}
    assert len(datalist["training"]) == 10
    assert named == set(folder.rglob("*.png"))


def test_pictures_are_rgb_and_labels_hold_only_background_and_lesion(folder):
    for image_path, label_path in pairs_of(folder):
        image, label = Image.open(image_path), Image.open(label_path)
        assert (image.mode, image.size) == ("RGB", (64, 64))
        assert (label.mode, label.size) == ("L", (64, 64))
        assert set(np.unique(label)) == {0, 255}


@pytest.mark.parametrize("size", [32, 64])
def test_no_label_is_empty_or_covers_the_picture(size):
    for seed in range(60):
        _, label = sample._draw_case(np.random.default_rng(seed), size)
        assert 0.01 < np.mean(label > 0) < 0.9, f"seed {seed}"


def test_lesions_absorb_more_light_than_the_skin_around_them():
    darker = []
    for seed in range(20):
        image, label = sample._draw_case(np.random.default_rng(seed), 64)
        darker.append(np.median(image[label > 0]) < np.median(image[label == 0]))
    assert np.mean(darker) > 0.9


def test_same_arguments_give_same_arrays(folder, tmp_path):
    assert_same_arrays(folder, make_sample(tmp_path / "again", **SMALL))


def test_pictures_differ_from_each_other_and_from_another_seed(folder, tmp_path):
    other = make_sample(tmp_path / "other", seed=1, **SMALL)
    images = [np.asarray(Image.open(image)).tobytes() for image, _ in pairs_of(folder) + pairs_of(other)]
    assert len(set(images)) == len(images)


def test_second_call_writes_nothing(folder):
    before = times_of(folder.parent)
    assert make_sample(folder, **SMALL) == folder
    assert times_of(folder.parent) == before


@pytest.mark.parametrize("lost", ["images/lesion_002.png", "labels/lesion_005.png", "datalist.json"])
def test_half_made_folder_is_replaced(folder, tmp_path, lost):
    broken = make_sample(tmp_path / "lesions", **SMALL)
    (broken / lost).unlink()
    make_sample(broken, **SMALL)
    assert_same_arrays(broken, folder)


@pytest.mark.parametrize("change", [{"count": 5}, {"size": 32}, {"seed": 1}])
def test_sample_of_other_arguments_is_replaced(folder, tmp_path, change):
    target = make_sample(tmp_path / "lesions", **{**SMALL, **change})
    make_sample(target, **SMALL)
    assert_same_arrays(target, folder)
    assert {path.name for path in target.rglob("*.png")} == {path.name for path in folder.rglob("*.png")}


def test_sample_of_an_older_format_is_replaced(tmp_path, monkeypatch):
    target = make_sample(tmp_path / "lesions", **SMALL)
    before = times_of(target)
    monkeypatch.setattr(sample, "FORMAT", sample.FORMAT + 1)
    make_sample(target, **SMALL)
    assert times_of(target) != before


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    draw, drawn = sample._draw_case, []

    def interrupt(rng, size):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(draw(rng, size))
        return drawn[-1]

    monkeypatch.setattr(sample, "_draw_case", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "lesions", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_files_appear_under_the_final_name_only_when_all_are_written(tmp_path, monkeypatch):
    draw = sample._draw_case

    def look(rng, size):
        assert not (tmp_path / "lesions").exists()
        return draw(rng, size)

    monkeypatch.setattr(sample, "_draw_case", look)
    make_sample(tmp_path / "lesions", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["lesions"]


@pytest.mark.parametrize("start", ["absent", "empty", "half-made"])
def test_processes_that_call_at_once_all_succeed(folder, tmp_path, start):
    target = tmp_path / "lesions"
    if start == "empty":
        target.mkdir()
    if start == "half-made":
        make_sample(target, **SMALL)
        (target / "images/lesion_000.png").unlink()
    forks = multiprocessing.get_context("fork")
    processes = [forks.Process(target=make_sample, args=(target,), kwargs=SMALL) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert_same_arrays(target, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["lesions"]


def test_sample_that_another_process_finished_first_is_kept(tmp_path, monkeypatch):
    target, draw, kept = tmp_path / "lesions", sample._draw_case, {}

    def overtake(rng, size):
        if not kept:
            monkeypatch.setattr(sample, "_draw_case", draw)
            make_sample(target, **SMALL)
            kept.update(times_of(target))
        return draw(rng, size)

    monkeypatch.setattr(sample, "_draw_case", overtake)
    make_sample(target, **SMALL)
    assert times_of(target) == kept


@pytest.mark.parametrize("name", ["notes.txt", "images/patient.png", "labels/final/lesion_000.png", "datalist.json"])
def test_folder_with_files_of_somebody_else_is_left_alone(tmp_path, name):
    mine = tmp_path / "lesions" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    with pytest.raises(InputError, match=name):
        make_sample(tmp_path / "lesions", **SMALL)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "lesions").touch()
    with pytest.raises(InputError, match="is a file"):
        make_sample(tmp_path / "lesions", **SMALL)


@pytest.mark.parametrize(("arguments", "message"), [({"count": 1}, "count"), ({"size": 31}, "size")])
def test_too_small_a_sample_is_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_sample(tmp_path / "lesions", **arguments)


def test_log_says_where_the_sample_was_made(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        folder = make_sample(tmp_path / "lesions", **SMALL)
        make_sample(tmp_path / "lesions", **SMALL)
    assert [record.name for record in caplog.records] == ["scripts.data.sample"]
    assert str(folder) in caplog.text
