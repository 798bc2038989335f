# SPDX-License-Identifier: Apache-2.0
"""Reading: every kind of file gives the same array in the same axes, RGB is scaled as said, and a bad file is refused
by name in one line."""

import io
import os
import struct

import itk
import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from scripts.errors import InputError
from scripts.io.reading import LoadCheckedImaged, label_values, spatial_shape
from scripts.transforms.intensity import ToRGB, ToRGBd
from tests.files import write_dicom, write_itk, write_nifti, write_palette, write_picture, write_series

HEIGHT, WIDTH, DEPTH = 5, 8, 3
GREY = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)  # RGB and alpha
VOLUME = np.random.default_rng(2).integers(0, 1000, (WIDTH, HEIGHT, DEPTH)).astype(np.int16)  # (X, Y, Z)
FLIPPED = np.diag([-2.0, -3.0, 4.0, 1.0])


def load(path, label=False):
    return LoadCheckedImaged("image", label)({"image": str(path)})["image"]


def rgb(path, intensity_range=None):
    """Read a file as the configs do: (3, X, Y[, Z]) in 0..1."""
    return ToRGBd("image", intensity_range)({"image": load(path)})["image"]


def rows(image):
    """Turn (C, X, Y) into (H, W, C)."""
    return np.asarray(image).transpose(2, 1, 0)


def scaled(array, low, high):
    return np.clip((array.astype(np.float64) - low) / (high - low), 0, 1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "PNG"])
@pytest.mark.parametrize("colour", [False, True])
def test_picture_of_8_bits_is_divided_by_255(tmp_path, suffix, colour):
    picture = COLOUR[..., :3] if colour else GREY
    image = rgb(write_picture(tmp_path / f"a.{suffix}", picture))
    assert image.shape == (3, WIDTH, HEIGHT)
    assert image.dtype == torch.float32
    expected = picture if colour else np.stack([GREY] * 3, axis=-1)
    np.testing.assert_allclose(rows(image), expected / 255, atol=1e-6)


def test_a_reader_that_is_not_used_says_nothing(caplog, recwarn):
    LoadCheckedImaged("image")
    assert not caplog.records
    assert not [each for each in recwarn if "nvImageCodec" in str(each.message)]


def test_alpha_is_left_out(tmp_path):
    np.testing.assert_allclose(
        rows(rgb(write_picture(tmp_path / "rgba.png", COLOUR))), COLOUR[..., :3] / 255, atol=1e-6
    )
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())])
    grey.save(tmp_path / "la.png")
    np.testing.assert_allclose(rows(rgb(tmp_path / "la.png"))[..., 2], GREY / 255, atol=1e-6)


def test_palette_gives_its_colours(tmp_path):
    colours = np.array([(255, 0, 0), (0, 90, 255), (7, 8, 9)], np.uint8)
    indices = GREY % 3
    image = rgb(write_palette(tmp_path / "a.png", indices, colours.tolist(), transparency=1))
    np.testing.assert_allclose(rows(image), colours[indices] / 255, atol=1e-6)


def test_one_bit_gives_black_and_white(tmp_path):
    image = rgb(write_picture(tmp_path / "a.png", GREY > 127))
    np.testing.assert_array_equal(rows(image)[..., 0], GREY > 127)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_any_colours_is_read_as_it_looks(tmp_path, mode):
    flat = np.zeros((16, 32, 3), np.uint8)  # even blocks, which survive compression
    flat[:, :16], flat[:, 16:] = ((90, 90, 90), (200, 200, 200)) if mode == "L" else ((200, 60, 30), (20, 90, 210))
    image = rgb(write_picture(tmp_path / "a.jpg", flat, mode, quality=100, subsampling=0))
    np.testing.assert_allclose(255 * rows(image), flat, atol=3)


def test_picture_of_16_bits_is_scaled_by_its_percentiles(tmp_path):
    deep = GREY.astype(np.uint16) * 250
    low, high = np.percentile(deep, (0.5, 99.5))
    for suffix in ("png", "tif"):
        image = rgb(write_picture(tmp_path / f"a.{suffix}", deep))
        np.testing.assert_allclose(rows(image)[..., 1], scaled(deep, low, high), atol=1e-5)


def test_tiff_of_16_bits_in_the_other_byte_order_is_read(tmp_path):
    deep = GREY.astype(np.uint16) * 250
    Image.frombytes("I;16B", (WIDTH, HEIGHT), deep.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(rows(load(tmp_path / "a.tif"))[..., 0], deep)


def test_tiff_of_floats_is_scaled_by_its_percentiles(tmp_path):
    values = GREY / np.float32(7) - 20
    low, high = np.percentile(values, (0.5, 99.5))
    image = rgb(write_picture(tmp_path / "a.tif", values))
    np.testing.assert_allclose(rows(image)[..., 0], scaled(values, low, high), atol=1e-5)


@pytest.mark.parametrize("affine", [np.eye(4), FLIPPED], ids=["ras", "flipped"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_keeps_its_own_axes_and_affine(tmp_path, name, affine):
    image = load(write_nifti(tmp_path / name, VOLUME, affine))
    np.testing.assert_array_equal(image[0], VOLUME)
    np.testing.assert_array_equal(image.affine, affine)


def test_nifti_of_one_slice_with_or_without_its_axis(tmp_path):
    assert load(write_nifti(tmp_path / "a.nii", VOLUME[..., 0])).shape == (1, WIDTH, HEIGHT)
    assert load(write_nifti(tmp_path / "b.nii", VOLUME[..., :1])).shape == (1, WIDTH, HEIGHT, 1)


def test_nifti_in_the_other_byte_order_is_read(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.save(nibabel.Nifti1Image(VOLUME.astype(">i2"), np.eye(4), header), tmp_path / "a.nii")
    np.testing.assert_array_equal(load(tmp_path / "a.nii")[0], VOLUME)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd"])
def test_itk_formats_keep_their_own_axes_and_give_a_ras_affine(tmp_path, name):
    image = load(write_itk(tmp_path / name, VOLUME, spacing=(2.0, 3.0, 4.0), origin=(10.0, 20.0, 30.0)))
    np.testing.assert_array_equal(image[0], VOLUME)
    assert image.affine.tolist() == [[-2, 0, 0, -10], [0, -3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]


def test_nrrd_picture_has_no_slice_axis(tmp_path):
    image = load(write_itk(tmp_path / "a.nrrd", VOLUME[..., 0]))
    np.testing.assert_array_equal(image[0], VOLUME[..., 0])


def test_nrrd_without_a_place_in_space_is_read(tmp_path):
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 8 5 3\nendian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + VOLUME.tobytes(order="F"))
    np.testing.assert_array_equal(load(tmp_path / "a.nrrd")[0], VOLUME)


def test_dicom_file_is_one_slice_in_columns_and_rows(tmp_path):
    deep = GREY.astype(np.uint16) * 250
    path = write_dicom(tmp_path / "a.dcm", deep)
    image = load(path)
    assert image.shape == (1, WIDTH, HEIGHT, 1)
    np.testing.assert_array_equal(image[0, ..., 0], deep.T)
    np.testing.assert_allclose(rgb(path)[2, ..., 0], scaled(deep.T, *np.percentile(deep, (0.5, 99.5))), atol=1e-5)


def test_dicom_series_is_a_volume_ordered_by_position_not_by_file_name(tmp_path):
    slices = [VOLUME[..., k].T.astype(np.uint16) for k in range(DEPTH)]
    image = load(write_series(tmp_path / "series", slices))
    np.testing.assert_array_equal(image[0], VOLUME)


@pytest.mark.parametrize("scale", [1, -1])
def test_slice_is_scaled_as_its_whole_volume(tmp_path, scale):
    values = VOLUME * np.int16(scale)
    values[..., 1] //= 10
    data = LoadCheckedImaged("image")({"image": str(write_nifti(tmp_path / "a.nii.gz", values))})
    image = ToRGB()(data["image"][..., 1])
    expected = scaled(values[..., 1], *np.percentile(values, (0.5, 99.5)))
    np.testing.assert_allclose(image[0], expected, atol=1e-5)


def test_slice_of_a_volume_with_few_bright_pixels_is_scaled_as_its_whole_volume(tmp_path):
    values = np.zeros((20, 20, 5), np.int16)
    values[3, 4, 1], values[5, 6, 2] = 100, 50
    whole = load(write_nifti(tmp_path / "a.nii", values))
    assert [float(ToRGB()(whole[..., k]).max()) for k in range(3)] == [0, 1, 0.5]


def test_few_bright_pixels_on_an_even_ground_are_seen(tmp_path):
    values = np.full((40, 40), 7, np.uint16)
    values[3, 4] = 9
    image = rows(rgb(write_picture(tmp_path / "a.png", values)))[..., 0]
    assert image[3, 4] == 1
    assert image.sum() == 1


def test_constant_image_is_black(tmp_path):
    image = rgb(write_nifti(tmp_path / "a.nii", np.full((4, 5, 6), 7, np.int16)))
    assert image.shape == (3, 4, 5, 6)
    assert not image.any()


@pytest.mark.parametrize("name", ["a.png", "a.nii"])
def test_intensity_range_goes_before_percentiles_and_clips(tmp_path, name):
    values = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)
    path = tmp_path / name
    image = rgb(write_picture(path, values.T) if name == "a.png" else write_nifti(path, values), (50, 200))
    np.testing.assert_allclose(image[0], [[0, 0, 1 / 3], [2 / 3, 1, 1]], atol=1e-6)


@pytest.mark.parametrize("bounds", [(200, 50), (50, 50)])
def test_intensity_range_without_width_is_refused(bounds):
    with pytest.raises(InputError, match="low < high"):
        ToRGB(bounds)


def test_image_that_no_file_describes_is_scaled_by_its_own_percentiles():
    values = VOLUME[None].astype(np.float32)
    np.testing.assert_allclose(
        ToRGB()(MetaTensor(values))[0], scaled(VOLUME, *np.percentile(VOLUME, (0.5, 99.5))), atol=1e-5
    )


# --- labels

IDS = GREY % 3  # 0, 1 and 2


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        pytest.param(
            lambda p: write_picture(p / "a.png", (IDS == 1) * np.uint8(255)), (IDS == 1) * 255, id="0-and-255"
        ),
        pytest.param(lambda p: write_picture(p / "a.png", IDS), IDS, id="class-ids"),
        pytest.param(lambda p: write_picture(p / "a.png", IDS == 1), (IDS == 1) * 255, id="one-bit"),
        pytest.param(
            lambda p: write_picture(p / "a.png", IDS.astype(np.uint16) * 300), IDS * np.int64(300), id="16-bit-ids"
        ),
        pytest.param(
            lambda p: write_picture(p / "a.tif", IDS.astype(np.int32) * 70000), IDS * np.int64(70000), id="32-bit-ids"
        ),
        pytest.param(
            lambda p: write_palette(p / "a.png", IDS, [(255, 255, 255), (128, 0, 0), (0, 128, 0)]), IDS, id="palette"
        ),
        pytest.param(lambda p: write_picture(p / "a.png", np.stack([IDS] * 3, -1)), IDS, id="rgb-copies"),
        pytest.param(
            lambda p: write_picture(p / "a.png", np.stack([IDS] * 3 + [np.full_like(IDS, 255)], -1)), IDS, id="rgba"
        ),
        pytest.param(lambda p: write_picture(p / "a.png", IDS, "LA"), IDS, id="grey-and-alpha"),
        pytest.param(lambda p: write_picture(p / "a.bmp", IDS), IDS, id="bmp"),
        pytest.param(lambda p: write_nifti(p / "a.nii", IDS.T.astype(np.float64)), IDS, id="whole-floats"),
        pytest.param(
            lambda p: write_nifti(p / "a.nii", IDS.T.astype(np.uint16) * 300), IDS * np.int64(300), id="nifti-16-bit"
        ),
        pytest.param(lambda p: write_itk(p / "a.nrrd", IDS.T), IDS, id="nrrd"),
    ],
)
def test_label_of_any_form_gives_its_ids(tmp_path, write, expected):
    label = label_values(load(write(tmp_path), label=True))
    assert label.dtype == torch.int32
    assert label.shape == (1, WIDTH, HEIGHT)
    np.testing.assert_array_equal(label[0].T, expected.astype(np.int64))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", ["jpg", "JPEG"])
def test_jpeg_label_is_one_object_above_half(tmp_path, mode, suffix):
    mask = np.zeros((32, 48), np.uint8)
    mask[3:11, 20:41] = 255
    path = write_picture(tmp_path / f"a.{suffix}", mask, mode, quality=60)
    assert len(np.unique(load(path, label=True))) > 2  # lossy indeed
    np.testing.assert_array_equal(label_values(load(path, label=True))[0].T, mask)


def test_volume_label_keeps_its_axes(tmp_path):
    ids = (VOLUME % 4).astype(np.uint8)
    np.testing.assert_array_equal(
        label_values(load(write_nifti(tmp_path / "a.nii.gz", ids, FLIPPED), label=True))[0], ids
    )


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("a.png", lambda path: write_picture(path, COLOUR[..., :3]), "colour picture"),
        ("a.nii", lambda path: write_nifti(path, VOLUME - np.int16(1000)), "negative"),
        ("a.nii", lambda path: write_nifti(path, VOLUME / np.float32(3)), "not whole numbers"),
    ],
)
def test_what_is_not_a_label_is_refused_by_name_in_one_line(tmp_path, name, write, reason):
    path = write(tmp_path / name)
    with pytest.raises(InputError, match=reason) as caught:
        label_values(load(path, label=True))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- files that cannot be used


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def text(path):
    path.write_text("this is no image\n")
    return path


def noise(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def with_bad_pixels(*values):
    array = np.ones((4, 5, 6), np.float32)
    array[0, 0, : len(values)] = values
    return array


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        pytest.param("a.png", lambda path: path, "does not exist", id="missing"),
        *[
            pytest.param(f"a.{suffix}", text, "cannot be read as an image: .", id=f"text-named-{suffix}")
            for suffix in ("png", "jpg", "tif", "nii", "nii.gz", "nrrd", "dcm", "mha", "txt")
        ],
        pytest.param("a.png", lambda path: path.touch() or path, "cannot be read as an image: .", id="empty-file"),
        pytest.param("a.png", lambda p: cut(write_picture(p, noise(64, 64, 3))), "truncated", id="cut-png"),
        pytest.param("a.jpg", lambda p: cut(write_picture(p, noise(64, 64, 3))), "truncated", id="cut-jpeg"),
        pytest.param("a.tif", lambda p: cut(write_picture(p, noise(64, 64, 3))), "truncated", id="cut-tiff"),
        pytest.param("a.nii.gz", lambda p: cut(write_nifti(p, noise(32, 32, 8))), "ended before", id="cut-nifti-gz"),
        pytest.param("a.nii", lambda p: cut(write_nifti(p, noise(32, 32, 8))), "was cut short", id="cut-nifti"),
        pytest.param("a.nrrd", lambda p: cut(write_itk(p, noise(32, 32, 8))), "was cut short", id="cut-nrrd"),
        pytest.param("a", lambda p: p.mkdir() or p, "is a folder without a DICOM series", id="empty-folder"),
        pytest.param(
            "a",
            lambda p: write_picture(p / "b.png", GREY).parent,
            "is a folder without a DICOM series",
            id="folder-of-pictures",
        ),
        pytest.param("a.nii", lambda p: write_nifti(p, with_bad_pixels(np.nan)), "1 pixels that are NaN", id="nan"),
        pytest.param(
            "a.nii",
            lambda p: write_nifti(p, with_bad_pixels(np.inf, -np.inf, np.nan)),
            "3 pixels that are NaN or infinite",
            id="infinite",
        ),
        pytest.param(
            "a.tif",
            lambda p: write_picture(p, with_bad_pixels(np.nan)[0]),
            "1 pixels that are NaN",
            id="nan-in-a-picture",
        ),
        pytest.param("a.nii", lambda p: write_nifti(p, noise(4, 5, 6, 5)), "5 volumes", id="four-axes"),
        pytest.param(
            "a.nii", lambda p: write_nifti(p, noise(4, 5, 6, 2, 3)), "not an image or a volume", id="five-axes"
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_unusable_file_is_refused_by_name_in_one_line(tmp_path, name, write, reason):
    path = write(tmp_path / name)
    with pytest.raises(InputError, match=reason) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert "ITK-source" not in str(caught.value)


# --- the last volume


def test_last_volume_is_read_once_and_a_changed_file_anew(tmp_path):
    loader = LoadCheckedImaged("image")
    path = write_nifti(tmp_path / "a.nii", VOLUME)
    first = loader({"image": path})["image"]
    assert loader({"image": path})["image"] is first
    write_nifti(path, VOLUME + np.int16(1))
    os.utime(path, (1, 1))  # whatever the clock's steps are
    np.testing.assert_array_equal(loader({"image": path})["image"][0], VOLUME + 1)


def test_only_the_last_volume_stays_in_memory_and_pictures_do_not(tmp_path):
    loader = LoadCheckedImaged("image")
    one, other = (write_nifti(tmp_path / f"{name}.nii", VOLUME) for name in "ab")
    first = loader({"image": one})["image"]
    loader({"image": other})
    assert loader({"image": one})["image"] is not first
    loader({"image": write_picture(tmp_path / "c.png", GREY)})
    assert loader.last is None


@pytest.mark.parametrize(
    ("shape", "expected"), [((1, 8, 5), (8, 5)), ((3, 8, 5, 1), (8, 5)), ((1, 8, 5, 3), (8, 5, 3))]
)
def test_last_axis_of_one_slice_does_not_count(shape, expected):
    assert spatial_shape(np.zeros(shape)) == expected


def test_an_items_own_intensity_range_goes_before_the_given_one():
    image = MetaTensor(torch.tensor([[[0.0, 10.0], [20.0, 40.0]]]))
    data = ToRGBd("image", (0, 40))({"image": image, "intensity_range": [0, 20]})
    assert "intensity_range" not in data
    assert data["image"][0].tolist() == [[0, 0.5], [1, 1]]
    assert ToRGBd("image", (0, 40))({"image": image})["image"][0].tolist() == [[0, 0.25], [0.5, 1]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("label", [False, True])
def test_a_photo_and_its_label_are_read_as_they_are_stored_and_a_turned_one_is_told(
    tmp_path, orientation, label, caplog
):
    rows = np.zeros((6, 10), np.uint8)
    rows[:3, :7] = 240
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, options in (("photo.jpg", {"quality": 95}), ("photo.png", {}), ("photo.tif", {})):
        caplog.clear()
        Image.fromarray(rows).save(tmp_path / name, exif=exif, **options)
        if name == "photo.tif" and orientation > 4:
            with pytest.raises(InputError, match="stored lying on its side: save it upright"):
                LoadCheckedImaged("image", label=label)({"image": tmp_path / name})
            continue
        image = LoadCheckedImaged("image", label=label)({"image": tmp_path / name})["image"]
        assert image.shape == (1, 10, 6)
        assert image[0, :6, :2].float().mean() > 200 and image[0, 8:].float().mean() < 40
        assert ("is stored turned (EXIF)" in caplog.text) == (orientation != 1)


def test_a_tiff_of_many_pages_is_refused_and_not_cut_to_the_first(tmp_path):
    pages = [Image.fromarray(noise(6, 5)) for _ in range(3)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"stack\.tif has 3 pages: give a file for each"):
        LoadCheckedImaged("image")({"image": tmp_path / "stack.tif"})


@pytest.mark.parametrize("volumes", [2, 3, 4])
def test_a_nifti_of_several_volumes_is_not_taken_for_colours(tmp_path, volumes):
    path = write_nifti(tmp_path / "bold.nii.gz", noise(4, 5, 6, volumes))
    with pytest.raises(InputError, match=f"bold.nii.gz has {volumes} volumes"):
        LoadCheckedImaged("image")({"image": path})


def test_without_itk_pictures_and_nifti_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.io.reading.optional_import", lambda name: (None, False))
    load = LoadCheckedImaged("image")
    assert load({"image": write_nifti(tmp_path / "a.nii", noise(4, 5, 6))})["image"].shape == (1, 4, 5, 6)
    assert load({"image": write_picture(tmp_path / "a.png", noise(4, 5))})["image"].shape == (1, 5, 4)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.75, 3)])
def test_a_nifti_that_does_not_say_where_it_lies_lies_where_itk_has_it(tmp_path, spacing):
    image = nibabel.Nifti1Image(noise(9, 8, 7).T.copy(), None)
    image.header.set_zooms(spacing)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert not (image.header["sform_code"] or image.header["qform_code"])
    affine = LoadCheckedImaged("image")({"image": tmp_path / "a.nii.gz"})["image"].affine.numpy()
    seen = itk.imread(tmp_path / "a.nii.gz")
    columns = itk.array_from_matrix(seen.GetDirection()) * np.asarray(seen.GetSpacing())
    assert np.allclose(np.diag([-1, -1, 1]) @ affine[:3, :3], columns)
    assert np.allclose(affine[:3, 3], np.asarray(seen.GetOrigin()))


@pytest.mark.parametrize("shape", [(5, 6, 7, 1), (5, 6, 7, 1, 1), (5, 6, 1, 1), (5, 6, 1)])
def test_axes_of_one_that_programs_append_are_left_out(tmp_path, shape):
    voxels = noise(*shape)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 2, 3, 1])), tmp_path / "a.nii.gz")
    image = LoadCheckedImaged("image")({"image": tmp_path / "a.nii.gz"})["image"]
    assert image.shape == (1, *shape[:3]) and np.array_equal(image[0].numpy(), voxels.reshape(shape[:3]))


@pytest.mark.parametrize("names", ["RGB", "RGBA"])
def test_a_nifti_of_colours_has_them_as_channels(tmp_path, names):
    voxels = noise(5, 6, 7, len(names))
    packed = np.ascontiguousarray(voxels).view([(name, "u1") for name in names])[..., 0]
    nibabel.save(nibabel.Nifti1Image(packed, np.diag([1, 2, 3, 1])), tmp_path / "a.nii.gz")
    image = LoadCheckedImaged("image")({"image": tmp_path / "a.nii.gz"})["image"]
    assert np.array_equal(image.numpy(), voxels.transpose(3, 0, 1, 2))


def write_tiff(path, tags, data):
    """Write a TIFF of one strip with any tags, as programs do that PIL cannot write like."""
    entries = {**tags, 273: (4, 1, 8 + 2 + (len(tags) + 1) * 12 + 4)}
    body = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + data)
    return path


def tags_of(array, bits, photometric=1, planes=1):
    rows, columns = array.shape[-2:]
    shorts = {258: bits, 259: 1, 262: photometric, 277: 1, 284: planes}
    longs = {256: columns, 257: rows, 278: rows, 279: array.nbytes}
    return {**{k: (3, 1, v) for k, v in shorts.items()}, **{k: (4, 1, v) for k, v in longs.items()}}


def test_a_tiff_of_16_bits_whose_white_is_zero_is_no_negative(tmp_path):
    array = np.arange(30, dtype=np.uint16).reshape(5, 6) * 2000
    path = write_tiff(tmp_path / "a.tif", tags_of(array, 16, photometric=0), array.tobytes())
    image = LoadCheckedImaged("image")({"image": path})["image"]
    assert np.array_equal(image[0].numpy().T, 65535 - array.astype(int))


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_a_tiff_of_64_bits_says_what_to_do(tmp_path, dtype):
    array = np.ones((5, 6), dtype)
    path = write_tiff(tmp_path / "a.tif", tags_of(array, 64), array.tobytes())
    with pytest.raises(InputError, match="is a 64-bit TIFF, which is not read: save it with 8, 16 or 32 bits"):
        LoadCheckedImaged("label", label=True)({"label": path})


def test_a_tiff_of_planes_of_16_bits_says_what_to_do(tmp_path):
    array = noise(3, 5, 6).astype(np.uint16)
    tags = tags_of(array, 16, photometric=2, planes=2)
    offset = 8 + 2 + (len(tags) + 1) * 12 + 4 + array.nbytes
    tags[258], tags[277] = (3, 3, offset), (3, 1, 3)
    path = write_tiff(tmp_path / "a.tif", tags, array.tobytes() + struct.pack("<3H", 16, 16, 16))
    with pytest.raises(InputError, match="planes of 16 bits, which is not read: save its pixels together"):
        LoadCheckedImaged("image")({"image": path})


def label_of(path):
    return label_values(LoadCheckedImaged("label", label=True)({"label": path})["label"])[0].numpy().T


def disc(side=60, radius=18):
    y, x = np.mgrid[:side, :side]
    return (((y - 30) ** 2 + (x - 26) ** 2) < radius**2).astype(np.uint8)


def test_a_mask_with_smooth_edges_is_one_object(tmp_path, caplog):
    mask = Image.fromarray(disc() * 255).resize((240, 240), Image.BILINEAR).resize((60, 60), Image.BILINEAR)
    assert len(np.unique(mask)) > 8
    mask.save(tmp_path / "smooth.png")
    buffer = io.BytesIO()
    Image.fromarray(disc() * 255).save(buffer, "JPEG", quality=80)
    Image.open(buffer).save(tmp_path / "jpeg.png")
    for name in ("smooth", "jpeg"):
        values = label_of(tmp_path / f"{name}.png")
        assert set(np.unique(values)) == {0, 255}
        assert (values > 0).sum() == pytest.approx(disc().sum(), rel=0.05)
        assert f"{name}.png has greys on its edges" in caplog.text


def test_smooth_edges_between_several_ids_are_refused(tmp_path):
    ids = disc() * 120 + disc(radius=9) * 100
    Image.fromarray(ids.astype(np.uint8)).resize((300, 300), Image.BICUBIC).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="greys on the edges of its ids"):
        label_of(tmp_path / "a.png")


@pytest.mark.parametrize("top", [40, 255])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_many_ids_of_small_and_large_objects_stay_as_they_are(tmp_path, top, size, caplog):
    ids = np.zeros((200, 200), np.uint8)
    for n in range(1, top + 1):
        y, x = divmod(n - 1, 16)
        ids[12 * y : 12 * y + size + n % 4, 12 * x : 12 * x + size] = n
    Image.fromarray(ids).save(tmp_path / "a.png")
    assert np.array_equal(label_of(tmp_path / "a.png"), ids) and "edges" not in caplog.text


def test_a_palette_whose_index_0_is_white_is_read_by_its_greys(tmp_path, caplog):
    mask = disc()
    palette = Image.fromarray(1 - mask, "P")  # white where the index is 0, which is the object
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.save(tmp_path / "inverted.png")
    assert np.array_equal(label_of(tmp_path / "inverted.png"), mask * 255)
    assert "index 0 of its palette is not black" in caplog.text


def test_a_mask_in_the_transparency_is_the_label(tmp_path, caplog):
    rgba = np.full((60, 60, 4), 255, np.uint8)
    rgba[..., 3] = disc() * 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(label_of(tmp_path / "a.png") > 0, disc() > 0)
    assert "has its mask in its transparency" in caplog.text


def test_ids_that_a_scaled_header_missed_by_a_little_are_ids(tmp_path):
    label = nibabel.Nifti1Image(disc()[..., None].astype(np.float64), np.eye(4) * 2)
    label.set_data_dtype(np.uint8)
    nibabel.save(label, tmp_path / "a.nii.gz")
    assert set(np.unique(nibabel.load(tmp_path / "a.nii.gz").get_fdata())) != {0, 1}
    values = label_values(LoadCheckedImaged("label", label=True)({"label": tmp_path / "a.nii.gz"})["label"])
    assert values.dtype == torch.int32 and set(np.unique(values)) == {0, 1}


def test_a_gif_is_read(tmp_path):
    Image.fromarray(disc() * 255).save(tmp_path / "a.gif")
    assert np.array_equal(label_of(tmp_path / "a.gif") > 0, disc() > 0)
