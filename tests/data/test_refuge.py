# SPDX-License-Identifier: Apache-2.0
"""REFUGE: every rater's masks are listed, their mean is the soft target, and what is missing is named in one line."""

import json
import logging
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from scripts.data import ObjectDataset, decathlon_datalist, find_datalist, pad_objects, refuge_datalist
from scripts.errors import InputError
from scripts.io.reading import LoadCheckedImaged, label_values
from scripts.prompts.class_layout import ClassLayout
from scripts.transforms import ObjectMasksd, UprightSliced
from tests.data.fundus import CLASSES, HEIGHT, WIDTH, drawn, make_case, make_refuge, photograph
from tests.files import write_dicom, write_nifti, write_picture

ROOT = Path(__file__).parents[2]
IDS = {"disc": [1], "cup": [2]}


def names(datalist):
    return {split: [Path(pair["image"]).stem for pair in pairs] for split, pairs in datalist.items() if split != "test"}


def mean_of(part, raters=3, index=0):
    return np.mean([drawn(part, r, index) for r in range(1, raters + 1)], axis=0, dtype=np.float32)


def one_pair(root):
    return refuge_datalist(root)["training"][0]


def load(label):
    return label_values(LoadCheckedImaged("label", label=True)({"label": label})["label"])


def listed(data, cache, **options):
    dataset = ObjectDataset(data, lambda item: item, IDS, objects_per_item=None, cache_dir=str(cache), **options)
    return [dict(dataset[i]) for i in range(len(dataset))]


# --- the list


def test_image_comes_with_the_masks_of_each_rater_for_disc_then_cup(tmp_path):
    datalist = refuge_datalist(str(make_refuge(tmp_path, training=1, test=0, raters=2)))
    case = tmp_path / "Training-400" / "g0001"
    masks = [[str(case / f"g0001_seg_{part}_{rater}.png") for rater in (1, 2)] for part in ("disc", "cup")]
    assert datalist["training"] == [{"image": str(case / "g0001.jpg"), "label": masks}]


@pytest.mark.parametrize(
    ("parts", "validation"),
    [
        ({"test": 2}, ["t0001", "t0002"]),
        ({"test": 2, "validation": 1}, ["v0001"]),
        ({"test": 0, "validation": 1}, ["v0001"]),
    ],
)
def test_it_validates_on_its_validation_folder_else_on_its_test_folder(tmp_path, parts, validation):
    datalist = refuge_datalist(make_refuge(tmp_path, training=3, raters=1, **parts))
    assert names(datalist) == {"training": ["g0001", "g0002", "g0003"], "validation": validation}


def test_training_folder_alone_is_split_by_fraction_and_seed(tmp_path):
    root = make_refuge(tmp_path, training=10, test=0, raters=1)
    splits = [names(refuge_datalist(root, 0.3, seed)) for seed in (0, 0, 1)]
    assert [len(splits[0][split]) for split in ("training", "validation")] == [7, 3]
    assert sorted(chain(*splits[0].values())) == [f"g{i:04d}" for i in range(1, 11)]
    assert splits[0] == splits[1] != splits[2]


def test_images_without_masks_are_left_out_by_name_and_a_folder_of_them_does_not_validate(tmp_path, caplog):
    root = make_refuge(tmp_path, training=3, test=0, raters=1)
    make_case(root / "Training-400", "g0009", raters=0)
    make_case(root / "Test-400", "t0001", raters=0)
    (root / "Training-400" / "notes.txt").touch()
    with caplog.at_level(logging.WARNING):
        datalist = refuge_datalist(root, val_fraction=0)
    assert names(datalist) == {"training": ["g0001", "g0002", "g0003"], "validation": []}
    left_out = [record.getMessage() for record in caplog.records]
    assert [text.rpartition("Training-400")[2] for text in left_out[:1]] == [
        ": left out 1 images without masks of disc and cup: g0009"
    ]
    assert len(left_out) == 2


@pytest.mark.parametrize("make", [lambda root: root, lambda root: make_case(root / "Training-400", "g1", 0).parents[1]])
def test_folder_without_masks_is_refused_in_one_line(tmp_path, make):
    with pytest.raises(InputError, match=r"has no masks Training-400/<name>/<name>_seg_disc_1.png") as caught:
        refuge_datalist(make(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_layout_is_found_by_its_training_folder(tmp_path):
    root = make_refuge(tmp_path, training=5, test=0, raters=1)
    found = find_datalist(str(root), "cache", 0.4, 3)
    assert found == refuge_datalist(root, 0.4, 3)
    assert len(found["validation"]) == 2


# --- the mean of the raters


@pytest.mark.parametrize("raters", [1, 2, 3, 7])
def test_label_is_the_mean_of_the_raters_with_one_channel_for_each_class(tmp_path, raters):
    label = load(one_pair(make_refuge(tmp_path, training=1, test=0, raters=raters))["label"])
    assert (label.dtype, label.shape) == (torch.float32, (2, WIDTH, HEIGHT))
    for channel, part in zip(label, CLASSES):
        np.testing.assert_allclose(channel.T, mean_of(part, raters), atol=1e-6)


def test_cut_at_a_half_the_mean_is_the_majority(tmp_path):
    label = load(one_pair(make_refuge(tmp_path, training=1, test=0))["label"])
    assert sorted(label.unique().tolist()) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    for channel, part in zip(label, CLASSES):
        np.testing.assert_array_equal(channel.T > 0.5, drawn(part, rater=2))


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_mask_of_a_rater_is_what_is_above_half_of_its_largest_value(tmp_path, value, mode):
    mask = drawn("disc").astype(np.uint8) * value
    mask[0, 0] = value // 3  # the fringe of a mask that was resized
    paths = [str(write_picture(tmp_path / "1.png", mask, mode)), str(write_picture(tmp_path / "2.png", 0 * mask))]
    np.testing.assert_array_equal(load([paths])[0].T, drawn("disc") / np.float32(2))


def test_raters_may_have_drawn_on_every_slice_of_a_volume(tmp_path):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (3, 5, 4, 2), dtype=np.uint8)  # raters, x, y, slices
    paths = [str(write_nifti(tmp_path / f"{i}.nii", mask)) for i, mask in enumerate(masks)]
    label = load([paths])
    assert label.shape == (1, 5, 4, 2)
    np.testing.assert_allclose(label[0], masks.mean(0), atol=1e-6)


def test_soft_masks_come_upright_and_one_for_each_object(tmp_path):
    (item,) = listed([one_pair(make_refuge(tmp_path, training=1, test=0))], tmp_path / "cache")
    transforms = [LoadCheckedImaged("image"), LoadCheckedImaged("label", label=True), UprightSliced(), ObjectMasksd()]
    data = Compose(transforms)(item)
    assert data["image"].shape == (3, HEIGHT, WIDTH)
    assert data["label"].dtype == torch.float32
    np.testing.assert_allclose(data["label"], np.stack([mean_of("disc"), mean_of("cup")]), atol=1e-6)


def test_path_of_an_image_is_never_a_list_of_raters(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        LoadCheckedImaged("image")({"image": one_pair(make_refuge(tmp_path, training=1, test=0))["label"]})


# --- objects


def test_objects_have_the_pixels_of_the_majority(tmp_path):
    (item,) = listed([one_pair(make_refuge(tmp_path, training=1, test=0))], tmp_path / "cache")
    assert item["objects"] == [[1], [2]]
    assert json.loads(item["case"]) == {
        "image": "g0001.jpg", "slice": 0, "objects": ["disc", "cup"],
        "areas": [int(drawn(part).sum()) for part in CLASSES],
    }  # fmt: skip


def test_class_that_no_majority_sees_is_not_asked_for(tmp_path):
    pair = one_pair(make_refuge(tmp_path, training=1, test=0, raters=2))
    write_picture(Path(pair["label"][1][0]), np.zeros((HEIGHT, WIDTH), np.uint8))  # one of two is no majority
    (item,) = listed([pair], tmp_path / "cache")
    assert item["objects"] == [[1]]
    (item,) = listed([pair], tmp_path / "cache", layout=ClassLayout({"disc": [1], "cup": [2]}))
    assert (item["objects"], json.loads(item["case"])["areas"][1]) == ([[1], [2]], 0)


def test_dicom_image_may_have_pictures_for_its_raters(tmp_path):
    pair = one_pair(make_refuge(tmp_path, training=1, test=0))
    pair["image"] = str(write_dicom(tmp_path / "a.dcm", np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)))
    (item,) = listed([pair], tmp_path / "cache")
    assert item["objects"] == [[1], [2]]


def test_mask_that_has_changed_is_read_again(tmp_path):
    pair = one_pair(make_refuge(tmp_path, training=1, test=0, raters=1))
    areas = []
    for size in (5, 9):
        write_picture(
            Path(pair["label"][1][0]), np.pad(np.ones((size, size), np.uint8), ((9, 71 - size), (50, 46 - size)))
        )
        (item,) = listed([pair], tmp_path / "cache")
        areas.append(json.loads(item["case"])["areas"][1])
    assert areas == [25, 81]


def write_mask(case, part, shape=(HEIGHT, WIDTH), rater=2):
    write_picture(case / f"{case.name}_seg_{part}_{rater}.png", np.ones(shape, np.uint8))


def all_of(case, mask):
    for path in case.glob("*_seg_*"):
        write_picture(path, mask)


BAD = {
    "rater-missing": (lambda case: (case / "bad_seg_cup_2.png").unlink(), r"bad_seg_cup_2.png does not exist"),
    "first-rater-missing": (lambda case: (case / "bad_seg_disc_1.png").unlink(), r"bad_seg_disc_1.png does not exist"),
    "no-cup": (lambda case: [p.unlink() for p in case.glob("*cup*")], r"bad_seg_cup_1.png does not exist"),
    "image-missing": (lambda case: (case / "bad.jpg").unlink(), r"bad.jpg does not exist"),
    "raters-of-different-size": (
        lambda case: write_mask(case, "disc", (HEIGHT, WIDTH - 1)),
        r"bad_seg_disc_2.png is 95 x 80 but .*bad_seg_disc_1.png is 96 x 80",
    ),
    "classes-of-different-size": (
        lambda case: write_mask(case, "cup", (WIDTH, HEIGHT), rater=1),
        r"bad_seg_cup_1.png is 80 x 96 but .*bad_seg_disc_1.png is 96 x 80",
    ),
    "masks-of-another-size": (
        lambda case: all_of(case, np.ones((WIDTH, HEIGHT), np.uint8)),
        r"bad.jpg is 96 x 80 but its label .*bad_seg_disc_1.png \(the mean of its raters\) is 80 x 96",
    ),
    "empty": (
        lambda case: all_of(case, np.zeros((HEIGHT, WIDTH), np.uint8)),
        r"bad_seg_disc_1.png \(the mean of its raters\) is empty",
    ),
    "colour": (
        lambda case: write_picture(case / "bad_seg_disc_1.png", photograph()),
        r"bad_seg_disc_1.png is a colour picture",
    ),
    "unreadable": (lambda case: (case / "bad_seg_cup_3.png").write_text("no"), r"bad_seg_cup_3.png cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "reason"), BAD.values(), ids=BAD)
def test_image_with_bad_masks_is_left_out_by_name_and_the_rest_are_kept(tmp_path, caplog, spoil, reason):
    root = make_refuge(tmp_path, training=2, test=0)
    spoil(make_case(root / "Training-400", "bad"))
    data = refuge_datalist(root, val_fraction=0)["training"]
    assert len(data) == 3
    items = listed(data, tmp_path / "cache")
    assert [Path(item["image"]).stem for item in items] == ["g0001", "g0002"]
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "scripts.data.object_dataset"]
    with pytest.raises(InputError, match=f"^left out: .*{reason}"):
        raise InputError(warning)
    assert "\n" not in warning


# --- other lists


def test_decathlon_list_may_give_raters_too(tmp_path):
    case = make_case(tmp_path, "a", raters=2)
    masks = [[f"a/a_seg_{part}_{rater}.png" for rater in (1, 2)] for part in CLASSES]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [{"image": "a/a.jpg", "label": masks}]}))
    (pair,) = decathlon_datalist(tmp_path)["training"]
    assert pair == {"image": str(case / "a.jpg"), "label": [[str(tmp_path / path) for path in row] for row in masks]}
    (item,) = listed([pair], tmp_path / "cache")
    assert item["objects"] == [[1], [2]]


@pytest.mark.parametrize(
    "label", [[], ["a.png"], [["a.png"], []], [["a.png"], "b.png"], [[["a.png"]]], {"a": 1}, None, 5]
)
def test_decathlon_list_with_raters_of_another_form_is_refused(tmp_path, label):
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [{"image": "a.jpg", "label": label}]}))
    with pytest.raises(InputError, match=r"dataset.json is not a Decathlon list") as caught:
        decathlon_datalist(tmp_path)
    assert "\n" not in str(caught.value)


# --- as a run prepares it


def parse(*files, **settings):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / file) for file in files])
    parser.update(settings)
    return parser


def prepared(tmp_path, part, **settings):
    """The data set that configs/train.yaml and configs/data/refuge.yaml make of four images and two."""
    settings = {"bundle_root": str(tmp_path), "dataset_dir": str(make_refuge(tmp_path / "data")), **settings}
    parser = parse("train.yaml", "data/refuge.yaml", image_size=64, pretrained="none", **settings)
    return parser.get_parsed_content(f"{part}#dataset")


def test_training_gives_soft_masks_of_the_raters_with_prompts_in_the_majority(tmp_path):
    dataset = prepared(tmp_path, "train", whole_prob=0.0, train_prompts={"click_1": 1.0})
    dataset.transform.set_random_state(0)
    items = [dataset[i] for i in range(4)] + [dataset[i] for i in range(4)]
    batch = pad_objects(items)
    assert batch["label"].dtype == torch.float32
    assert batch["label"].shape == (8, 2, 64, 64)
    levels = (batch["label"].unique() * 3).tolist()  # neither resizing nor turning makes other shares of three raters
    assert levels == pytest.approx([0, 1, 2, 3], abs=1e-4)
    for b, q in np.ndindex(8, 2):
        x, y = batch["points"][b, q, 0].int().tolist()
        assert batch["point_labels"][b, q].tolist() == [1, -1, -1]
        assert batch["label"][b, q, y, x] > 0.5


def test_the_mean_of_the_raters_is_what_the_loss_asks_for_not_their_majority():
    loss = parse("train.yaml", "data/refuge.yaml").get_parsed_content("loss")
    loss.grid = 1.0  # as the logits here, which a network gives on a quarter of the grid
    target = torch.from_numpy(np.stack([mean_of("disc"), mean_of("cup")]))[None]

    def loss_transform(probability):
        logits = torch.logit(probability, eps=1e-4).unsqueeze(2).expand(-1, -1, 4, -1, -1)
        return float(loss((logits, torch.ones(1, 2, 4)), target))

    assert loss_transform(target) < 0.01
    assert loss_transform((target > 0.5).float()) > loss_transform(target) + 0.05
    assert loss_transform((target > 0).float()) > loss_transform(target) + 0.05


def test_validation_gives_the_means_on_the_images_own_grid(tmp_path):
    dataset = prepared(tmp_path, "validate")
    assert len(dataset) == 2
    for index in range(2):
        data = dataset[index]
        np.testing.assert_allclose(data["label"], np.stack([mean_of(part, index=index) for part in CLASSES]), atol=1e-6)
        assert json.loads(data["case"])["objects"] == ["disc", "cup"]
        for q, part in enumerate(CLASSES):
            x, y = data["prompts"]["click_1"]["points"][q, 0].int().tolist()
            assert drawn(part, index=index)[y, x]
