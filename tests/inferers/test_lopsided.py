# SPDX-License-Identifier: Apache-2.0
"""A lop-sided shape through every kind of file: clicks land on it in training, and it comes back where it was in
prediction.

The shape is an L in the upper right corner of 28 rows and 40 columns. Turned, mirrored or on another slice it is not
itself, so each mistake with axes shows.
"""

import json
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

from scripts.data import ObjectDataset
from scripts.networks import Settings
from tests.files import write_dicom, write_itk, write_nifti, write_picture, write_series
from tests.inferers.brightness import IMAGE_SIZE, PREDICTED_IOU, BrightnessNetwork

CONFIGS = Path(__file__).parents[2] / "configs"
HEIGHT, WIDTH, DEPTH, K = 28, 40, 4, 2  # K is the slice that holds the shape
X, Y = 31, 3  # a pixel of the shape
OBLIQUE = np.array([[-0.5, 0.0, 0.1, 12.0], [0.0, -0.6, 0.0, -7.0], [0.1, 0.0, 2.0, 30.0], [0, 0, 0, 1]])
AFFINES = {"ras": np.eye(4), "flipped": np.diag([-0.5, -0.75, 2.0, 1.0]), "oblique": OBLIQUE}

SHAPE = np.zeros((HEIGHT, WIDTH), bool)
SHAPE[1:11, 30:34] = True
SHAPE[7:11, 30:39] = True
OTHER = np.zeros((HEIGHT, WIDTH), bool)  # of another brightness
OTHER[20:26, 3:9] = True


def rows(k=K):
    """Draw one slice, (H, W) uint8; those beside the shape's hold its mirror image."""
    shape = SHAPE if k == K else SHAPE[::-1, ::-1]
    return (30 + 190 * shape + 90 * (OTHER & ~shape)).astype(np.uint8)


def volume(draw=rows, dtype=np.int16, depth=DEPTH):
    """Stack slices to (X, Y, Z)."""
    return np.stack([draw(k).T for k in range(depth)], axis=-1).astype(dtype)


def label_rows(k=K):
    return (SHAPE if k == K else np.zeros_like(SHAPE)).astype(np.uint8)


def picture(suffix, **options):
    return lambda folder: write_picture(folder / f"lesion.{suffix}", rows(), **options)


def nifti(name):
    return lambda folder: write_nifti(folder / "liver.nii.gz", volume(), AFFINES[name])


def flat_nifti(folder):
    return write_nifti(folder / "liver.nii", volume()[..., K], AFFINES["flipped"])


def nrrd(folder):
    turned = [[0, 1, 0], [1, 0, 0], [0, 0, -1]]
    return write_itk(folder / "liver.nrrd", volume(), (0.5, 0.75, 2.0), (10.0, -20.0, 30.0), turned)


def dicom(folder):
    return write_dicom(folder / "slice.dcm", rows().astype(np.uint16) * 16, (5.0, -6.0, 7.0), spacing=(0.75, 0.5))


def series(folder):
    return write_series(folder / "series", [rows(k).astype(np.uint16) for k in range(DEPTH)])


PICTURES = {
    "png": picture("png"),
    "png-rgb": picture("png", mode="RGB"),
    "jpeg": picture("jpg", quality=95),
    "tiff": picture("tif"),
    "bmp": picture("bmp"),
    "dicom": dicom,
}
VOLUMES = {f"nifti-{name}": nifti(name) for name in AFFINES} | {"nrrd": nrrd, "dicom-series": series}


def config(file, **settings):
    parser = ConfigParser()
    parser.read_config(CONFIGS / file)
    parser.update(settings)
    return parser


# --- training


def picture_label(folder):
    return write_picture(folder / "label.png", label_rows() * np.uint8(255))


def jpeg_label(folder):
    return write_picture(folder / "label.jpg", label_rows() * np.uint8(255), quality=95)


def nifti_label(folder):
    return write_nifti(folder / "label.nii.gz", volume(label_rows, np.uint8))


def nrrd_label(folder):
    return write_itk(folder / "label.nrrd", volume(label_rows, np.uint8))


def dicom_label(folder):
    return write_dicom(folder / "label.dcm", label_rows().astype(np.uint16))


PAIRS = {
    **{name: (write, picture_label) for name, write in PICTURES.items()},
    "jpeg-both": (picture("jpg", quality=95), jpeg_label),
    "dicom-both": (dicom, dicom_label),
    **{name: (write, nifti_label) for name, write in VOLUMES.items()},
    "nrrd-both": (nrrd, nrrd_label),
}


def dataset_of(folder, image, label, transforms):
    """Make the data set of one pair as configs/train.yaml does."""
    parser = config("train.yaml", image_size=48, pretrained="none")
    data = [{"image": str(image(folder)), "label": str(label(folder))}]
    transform = parser.get_parsed_content(f"{transforms}#preprocessing")
    return ObjectDataset(data, transform, cache_dir=str(folder / "cache"))


@pytest.mark.parametrize(("image", "label"), PAIRS.values(), ids=PAIRS)
def test_validation_prompts_land_on_the_upright_shape(tmp_path, image, label):
    dataset = dataset_of(tmp_path, image, label, "validate")
    assert len(dataset) == 1
    item = dataset[0]
    np.testing.assert_array_equal(item["label"], SHAPE[None])
    brightness = item["image"].mean(0)
    assert brightness.shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(brightness > 0.7, SHAPE)
    np.testing.assert_array_equal((brightness > 0.3) & (brightness < 0.7), OTHER)
    x, y = item["prompts"]["click_1"]["points"][0, 0].int().tolist()
    assert SHAPE[y, x]
    assert brightness[y, x] > 0.7
    assert item["prompts"]["box"]["points"].tolist() == [[[30, 1], [38, 10]]]


@pytest.mark.parametrize("name", ["png", "nifti-flipped", "nrrd"])
def test_training_clicks_land_on_the_shape_after_augmentation(tmp_path, name):
    dataset = dataset_of(tmp_path, *PAIRS[name], "train")
    dataset.transform.set_random_state(0)
    clicks = bright = 0
    for _ in range(40):
        item = dataset[0]
        image, mask = item["image"].mean(0), item["label"][0].bool()
        assert image.shape == mask.shape == (48, 48)
        middle = (image.max() + image.min()) / 2
        if item["point_labels"][0, 0] == 1:
            x, y = item["points"][0, 0].int().tolist()
            assert mask[y, x]
            clicks += 1
            bright += int(image[y, x] > middle)
        else:
            inside = mask.nonzero().flip(1).float()  # (x, y)
            left_top, right_bottom = (item["points"][0, item["point_labels"][0] == corner][0] for corner in (2, 3))
            assert ((inside.mean(0) > left_top) & (inside.mean(0) < right_bottom)).all()
    assert 10 < clicks < 30
    assert bright >= 0.8 * clicks  # the border is blurred


# --- prediction


def predict(folder, dataset_dir, **settings):
    """Run configs/inference.yaml with a network that segments what is as bright as the click."""
    network = BrightnessNetwork()
    output = folder / "predictions"
    parser = config(
        "inference.yaml",
        dataset_dir=str(dataset_dir),
        output_dir=str(output),
        cache_dir=str(folder / "cache"),
        settings=Settings(image_size=IMAGE_SIZE, crop={"below": 0}),
        device="cpu",
        network=network,
        **settings,
    )
    parser.get_parsed_content("evaluator").run()
    parser.get_parsed_content("dataloader").finish()
    return output


def drawn_mask(overlay_path):
    """Find the pixels of an overlay, on the image's own grid, that are filled in the first object's blue."""
    small = Image.open(overlay_path).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    colours = np.asarray(small, dtype=float)
    return colours[..., 2] - colours[..., 0] > 25


def assert_overlay_is_upright(path, shape=SHAPE):
    assert (drawn_mask(path) == shape).mean() > 0.98


def report_of(output, name):
    report = json.loads((output / f"{name}_prediction.json").read_text())
    assert (output / report["mask"]).is_file()
    return report


@pytest.mark.parametrize("kind", [kind for kind in PICTURES if kind != "dicom"])
def test_prediction_of_a_picture_is_a_png_of_the_shape(tmp_path, kind):
    path = PICTURES[kind](tmp_path)
    output = predict(tmp_path, path, points=[[X, Y, 1]])
    mask = np.asarray(Image.open(output / "lesion_mask.png"))
    np.testing.assert_array_equal(mask, SHAPE)
    assert_overlay_is_upright(output / "lesion_overlay.jpg")
    report = report_of(output, "lesion")
    assert report["image"] == str(path)
    assert report["overlays"] == ["lesion_overlay.jpg"]
    assert report["objects"] == [
        {"object": 0, "slice": 0, "points": [[X, Y]], "labels": [1], "predicted_iou": PREDICTED_IOU}
    ]


def test_prediction_of_a_dicom_file_is_a_nifti_in_the_patients_space(tmp_path):
    output = predict(tmp_path, dicom(tmp_path), points=[[X, Y, 1]])
    mask = nibabel.load(output / "slice_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj).squeeze(), SHAPE.T)
    place = mask.affine @ [X, Y, 0, 1]
    np.testing.assert_allclose(
        place, [-(5 + 0.5 * X), -(-6 + 0.75 * Y), 7, 1], atol=1e-5
    )  # DICOM's x and y run the other way
    (overlay,) = report_of(output, "slice")["overlays"]
    assert_overlay_is_upright(output / overlay)


@pytest.mark.parametrize("affine", AFFINES)
def test_prediction_of_a_nifti_volume_is_a_nifti_on_its_grid(tmp_path, affine):
    output = predict(tmp_path, nifti(affine)(tmp_path), points=[[X, Y, 1]], slice=K)
    mask = nibabel.load(output / "liver_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), volume(label_rows))
    np.testing.assert_allclose(mask.affine, AFFINES[affine], atol=1e-6)
    assert np.asarray(mask.dataobj).dtype == np.uint8
    report = report_of(output, "liver")
    assert report["overlays"] == [f"liver_slice{K:03d}_overlay.jpg"]
    assert_overlay_is_upright(output / report["overlays"][0])
    assert report["objects"][0]["predicted_iou"] == PREDICTED_IOU


def test_prediction_of_a_nifti_picture_is_a_nifti_on_its_grid(tmp_path):
    output = predict(tmp_path, flat_nifti(tmp_path), points=[[X, Y, 1]])
    mask = nibabel.load(output / "liver_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj).squeeze(), SHAPE.T)
    np.testing.assert_allclose(mask.affine, AFFINES["flipped"], atol=1e-6)
    assert_overlay_is_upright(output / "liver_overlay.jpg")


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
def test_prediction_of_an_itk_volume_lies_where_the_volume_lies(tmp_path, suffix):
    source = nrrd(tmp_path)
    image = itk.imread(source)
    if suffix != "nrrd":
        source = tmp_path / f"liver.{suffix}"
        itk.imwrite(image, source)
    output = predict(tmp_path, source, points=[[X, Y, K, 1]])
    mask = itk.imread(output / ("liver_mask.nrrd" if suffix == "nrrd" else "liver_mask.mha"))
    np.testing.assert_array_equal(itk.array_view_from_image(mask).T, volume(label_rows))
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(mask.GetSpacing(), image.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(
        itk.array_from_matrix(mask.GetDirection()), itk.array_from_matrix(image.GetDirection()), atol=1e-6
    )
    assert_overlay_is_upright(output / f"liver_slice{K:03d}_overlay.jpg")


def test_prediction_of_a_dicom_series_is_a_nifti_volume(tmp_path):
    series(tmp_path)
    item = {"image": "series", "points": [[X, Y, 1]], "slice": K}
    (tmp_path / "list.json").write_text(json.dumps([item]))
    output = predict(tmp_path, tmp_path / "list.json")
    mask = nibabel.load(output / "series_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), volume(label_rows))
    assert_overlay_is_upright(output / f"series_slice{K:03d}_overlay.jpg")


def test_several_objects_are_numbered_in_one_mask(tmp_path):
    output = predict(tmp_path, picture("png")(tmp_path), points=[[[5, 22, 1]], [[X, Y, 1], [0, 0, 0]]])
    mask = np.asarray(Image.open(output / "lesion_mask.png"))
    np.testing.assert_array_equal(mask, OTHER + 2 * SHAPE)
    assert_overlay_is_upright(output / "lesion_overlay.jpg", OTHER)
    assert [entry["object"] for entry in report_of(output, "lesion")["objects"]] == [0, 1]


def test_several_slices_of_one_object_are_segmented_in_one_call(tmp_path):
    mirrored = [WIDTH - 1 - X, HEIGHT - 1 - Y]
    output = predict(tmp_path, nifti("flipped")(tmp_path), points=[[X, Y, K, 1], [*mirrored, 0, 1]])
    mask = np.asarray(nibabel.load(output / "liver_mask.nii.gz").dataobj)
    expected = volume(label_rows)
    expected[..., 0] = SHAPE[::-1, ::-1].T
    np.testing.assert_array_equal(mask, expected)
    assert report_of(output, "liver")["overlays"] == ["liver_slice000_overlay.jpg", "liver_slice002_overlay.jpg"]
    assert_overlay_is_upright(output / "liver_slice000_overlay.jpg", SHAPE[::-1, ::-1])


def test_box_covers_its_first_and_last_pixel(tmp_path):
    output = predict(tmp_path, picture("png")(tmp_path), boxes=[[30, 1, 38, 10]])
    mask = np.asarray(Image.open(output / "lesion_mask.png"))
    assert np.argwhere(mask).min(0).tolist() == [1, 30]
    assert np.argwhere(mask).max(0).tolist() == [10, 38]
    assert mask.sum() == 10 * 9


def test_more_objects_than_8_bits_can_number_keep_their_numbers(tmp_path):
    corners = [(x, y) for y in range(0, HEIGHT, 2) for x in range(0, WIDTH, 2)]
    output = predict(tmp_path, picture("png")(tmp_path), boxes=[[x, y, x + 1, y + 1] for x, y in corners])
    mask = np.asarray(Image.open(output / "lesion_mask.png"))
    assert len(corners) == 280
    assert [mask[y, x] for x, y in corners] == list(range(1, 281))


def test_slice_on_which_nothing_is_found_gets_an_empty_mask_and_shows_the_prompt(tmp_path):
    output = predict(tmp_path, nifti("ras")(tmp_path), points=[[X, Y, K, 0]])
    assert not np.asarray(nibabel.load(output / "liver_mask.nii.gz").dataobj).any()
    assert report_of(output, "liver")["overlays"] == [f"liver_slice{K:03d}_overlay.jpg"]
    assert not drawn_mask(output / f"liver_slice{K:03d}_overlay.jpg").any()


def test_of_several_slices_only_those_with_a_find_get_an_overlay(tmp_path):
    output = predict(tmp_path, nifti("ras")(tmp_path), points=[[X, Y, K, 1], [X, Y, 0, 0]])
    overlays = report_of(output, "liver")["overlays"]
    assert overlays == [f"liver_slice{K:03d}_overlay.jpg"]
    assert [path.name for path in output.glob("*.jpg")] == overlays


def test_folder_of_different_files_gives_each_its_own_mask(tmp_path):
    folder = tmp_path / "data"
    for kind in ("png", "jpeg", "dicom"):
        PICTURES[kind](folder)
    output = predict(tmp_path, folder, points=[[X, Y, 1]])
    for name in ("lesion_mask.png", "lesion_png_mask.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(output / name)), SHAPE)
    np.testing.assert_array_equal(np.asarray(nibabel.load(output / "slice_mask.nii.gz").dataobj).squeeze(), SHAPE.T)
