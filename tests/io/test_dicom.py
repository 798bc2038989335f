# SPDX-License-Identifier: Apache-2.0
"""DICOM series and segmentations: found, read onto the image's grid, and written."""

import json
import sys

import highdicom
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from scripts.data import find_datalist, find_inputs
from scripts.data.object_index import find_objects
from scripts.errors import InputError
from scripts.handlers import PredictionSaver
from scripts.io import dicom
from scripts.io.dicom_series import check_frames
from scripts.io.grids import on_grid_of
from scripts.io.reading import label_values
from scripts.transforms import LoadCheckedImaged, ToRGB
from tests.files import write_dicom, write_picture, write_series

HEIGHT, WIDTH, DEPTH = 12, 20, 6
MASKS = np.zeros((DEPTH, HEIGHT, WIDTH), np.uint8)
MASKS[2, 3:6, 4:9], MASKS[2, 8:10, 12:15], MASKS[4, 4:5, 15:18] = 1, 2, 2  # none on slice 3


@pytest.fixture
def series(tmp_path):
    """A series whose file names run against its positions, and whose slices are as bright as they are high."""
    return write_series(tmp_path / "scan", [np.full((HEIGHT, WIDTH), 100 * k, np.uint16) for k in range(DEPTH)], 2.5)


def write_seg(path, series, masks=MASKS, kind="BINARY", count=2):
    """Write a SEG with highdicom, its frames in the order of positions; empty ones are left out."""
    images = sorted(map(pydicom.dcmread, series.iterdir()), key=lambda image: image.ImagePositionPatient[2])
    for image in images:
        image.FrameOfReferenceUID = "1.2.3.4"
        image.update({keyword: image.get(keyword, "") for keyword in dicom.MAY_BE_EMPTY})
    described = [
        highdicom.seg.SegmentDescription(i, f"part {i}", codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL")
        for i in range(1, count + 1)
    ]
    uids = {"series_instance_uid": generate_uid(), "sop_instance_uid": generate_uid()}
    names = {"manufacturer": "m", "manufacturer_model_name": "m", "software_versions": "1", "device_serial_number": "1"}
    seg = highdicom.seg.Segmentation(
        images, masks, kind, described, series_number=9, instance_number=1, **uids, **names
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


def without_suffixes(folder):
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"IM{path.stem}"))
    return folder


@pytest.mark.parametrize("suffixes", [True, False])
def test_a_series_is_one_volume_ordered_by_position(series, suffixes):
    folder = series if suffixes else without_suffixes(series)
    assert len(dicom.series_files(folder)) == DEPTH
    (item,) = find_inputs(str(folder), "")
    assert (item["image"], item["name"]) == (str(folder), "scan")
    image = LoadCheckedImaged("image")({"image": item["image"]})["image"]
    assert image.shape == (1, WIDTH, HEIGHT, DEPTH)
    assert image[0, 0, 0].tolist() == [100 * k for k in range(DEPTH)]


def test_a_folder_of_series_and_files_lists_each(series, tmp_path):
    write_picture(tmp_path / "photo.png", np.zeros((4, 4), np.uint8))
    write_dicom(tmp_path / "view", np.zeros((4, 4), np.uint16))
    (tmp_path / "notes").mkdir()
    (tmp_path / "readme").write_text("no image")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert [item["name"] for item in find_inputs(str(tmp_path), "")] == ["photo", "scan", "view"]


def test_files_of_a_series_each_are_images_and_mixed_series_are_refused(series, tmp_path):
    views = tmp_path / "views"
    for i in range(3):
        write_dicom(views / f"{i}.dcm", np.zeros((4, 4), np.uint16))
    assert [item["name"] for item in find_inputs(str(views), "")] == ["0", "1", "2"]
    write_series(tmp_path / "other", [np.zeros((4, 4), np.uint16)] * 2)
    for path in (tmp_path / "other").iterdir():
        path.rename(series / f"other_{path.name}")
    with pytest.raises(InputError, match="holds 2 DICOM series: put each into a folder of its own"):
        find_inputs(str(series), "")
    with pytest.raises(InputError, match="holds 2 DICOM series"):
        LoadCheckedImaged("image")({"image": series})


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_segmentation_lies_where_its_image_does(series, tmp_path, kind):
    count, masks = (1, (MASKS == 1).astype(np.float32)) if kind == "FRACTIONAL" else (2, MASKS)
    seg = write_seg(tmp_path / "seg.dcm", series, masks, kind, count)
    image = LoadCheckedImaged("image")({"image": series})["image"]
    label = label_values(LoadCheckedImaged("label", label=True)({"label": seg})["label"])
    placed = on_grid_of(label, image)
    assert placed.dtype == torch.int32
    np.testing.assert_array_equal(placed[0].numpy().T, masks)
    np.testing.assert_array_equal(placed.affine, image.affine)


def test_a_segmentation_of_another_series_is_left_out_by_name(series, tmp_path):
    seg = write_seg(tmp_path / "seg.dcm", series)
    other = write_series(tmp_path / "short", [np.zeros((HEIGHT, WIDTH), np.uint16)] * 3, 2.5)
    found, problems = find_objects([{"image": str(other), "label": str(seg)}], str(tmp_path / "cache"))
    assert not found
    assert problems == [f"{seg} reaches beyond its image {other}: is it of another series?"]


def test_series_and_segmentations_pair_by_the_names_of_their_folders(series, tmp_path):
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    series.rename(data / "images" / "case_1")
    write_seg(data / "labels" / "case_1" / "anything", data / "images" / "case_1")
    lists = find_datalist(str(data), "")
    assert lists["training"] == [{"image": str(data / "images/case_1"), "label": str(data / "labels/case_1")}]
    found, problems = find_objects(lists["training"], str(tmp_path / "cache"))
    assert not problems
    assert found[0][1] == [(2, {1: 15, 2: 6}), (4, {2: 3}), (5, {})]  # and the last slice


def test_a_segmentation_is_no_image(series, tmp_path):
    seg = write_seg(tmp_path / "seg.dcm", series)
    with pytest.raises(InputError, match="is a DICOM SEG: that is a label, give the image that it is of"):
        LoadCheckedImaged("image")({"image": seg})


def test_what_is_written_reads_back_and_names_its_image(series, tmp_path):
    image = LoadCheckedImaged("image")({"image": series})["image"]
    path = tmp_path / "mask.dcm"
    dicom.write_segmentation(path, series, MASKS.T, np.asarray(image.affine, float), ["cell", "nucleus", "none"])
    written = highdicom.seg.segread(path)
    assert [segment.SegmentLabel for segment in written.SegmentSequence] == ["cell", "nucleus", "none"]
    reference = pydicom.dcmread(series / "001.dcm")
    assert written.StudyInstanceUID == reference.StudyInstanceUID
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == reference.SeriesInstanceUID
    label = label_values(LoadCheckedImaged("label", label=True)({"label": path})["label"])
    np.testing.assert_array_equal(on_grid_of(label, image)[0].numpy().T, MASKS)


def test_one_file_is_written_too(tmp_path):
    source = write_dicom(tmp_path / "view.dcm", np.zeros((HEIGHT, WIDTH), np.uint16))
    dicom.write_segmentation(tmp_path / "mask.dcm", source, MASKS[2].T, np.eye(4), ["one", "two"])
    array = highdicom.seg.segread(tmp_path / "mask.dcm").get_volume(combine_segments=True).array
    np.testing.assert_array_equal(array[0], MASKS[2])


@pytest.mark.parametrize(
    ("masks", "is_dicom", "said"),
    [(MASKS[:1], True, "nothing was found on"), (MASKS[2:3], False, "is not DICOM: output_type dicomseg")],
)
def test_what_cannot_be_written_is_said(tmp_path, masks, is_dicom, said):
    source = tmp_path / "view.dcm" if is_dicom else tmp_path / "view.png"
    (write_dicom if is_dicom else write_picture)(source, np.zeros((HEIGHT, WIDTH), np.uint16))
    with pytest.raises(InputError, match=said):
        dicom.write_segmentation(tmp_path / "mask.dcm", source, masks.T, np.eye(4), ["one", "two"])


def test_without_highdicom_it_says_what_to_install(series, tmp_path, monkeypatch):
    seg = write_seg(tmp_path / "seg.dcm", series)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match="takes highdicom: pip install highdicom"):
        LoadCheckedImaged("label", label=True)({"label": seg})


def test_where_nothing_was_found_the_rest_is_written(series, tmp_path, caplog):
    image = LoadCheckedImaged("image")({"image": series})["image"]
    nothing = MetaTensor(torch.zeros(1, *image.shape[1:], dtype=torch.uint8), meta=image.meta)
    PredictionSaver(str(tmp_path / "out"), ToRGB(), output_type="dicomseg").save(image, nothing, "scan")
    assert "no DICOM SEG is written" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scan_objects.csv", "scan_prediction.json"]
    assert json.loads((tmp_path / "out" / "scan_prediction.json").read_text())["mask"] is None


def change(folder, edit):
    """Change the headers of a series' files, in the order of their positions."""
    files = sorted(folder.iterdir(), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    for k, file in enumerate(files):
        data = pydicom.dcmread(file)
        edit(k, data, file)
        data.save_as(file)
    return folder


def move(k, data, at):
    data.ImagePositionPatient = at


def shrink(k, data, file):
    if k == 1:
        data.Rows, data.PixelData = 6, data.pixel_array[:6].tobytes()


def without_slice(k, data, file):
    if k == 3:
        data.ImagePositionPatient = [0, 0, 100.0]


def scout(k, data, file):
    if k == 2:
        data.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def nowhere(k, data, file):
    if k == 4:
        del data.ImageOrientationPatient


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (without_slice, r"not evenly apart \(2\.50 to .* mm\): some are missing"),
        (lambda k, data, file: move(k, data, [0, 0, 2.5 * (k // 2)]), "3 slices at the place of another"),
        (shrink, r"slices of several sizes \(20 x 12, 20 x 6\)"),
        (scout, "slices that are not parallel"),
        (nowhere, "1 slices of 6 that do not say where"),
    ],
    ids=["gap", "echoes", "sizes", "scout", "nowhere"],
)
def test_a_series_that_is_no_volume_is_refused(series, edit, says):
    with pytest.raises(InputError, match=says):
        LoadCheckedImaged("image")({"image": change(series, edit)})


def test_a_file_that_was_cut_short_is_not_left_out_in_silence(series):
    file = sorted(series.iterdir())[2]
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(InputError):
        LoadCheckedImaged("image")({"image": series})


def test_a_gantry_tilt_is_named_and_the_slices_are_right(series, caplog):
    image = LoadCheckedImaged("image")({"image": change(series, lambda k, data, file: move(k, data, [0, k, 2.5 * k]))})
    assert "gantry tilt of 22 degrees" in caplog.text and image["image"].shape == (1, WIDTH, HEIGHT, DEPTH)
    caplog.clear()
    LoadCheckedImaged("image")({"image": change(series, lambda k, data, file: move(k, data, [0, 0, 2.5 * k]))})
    assert "tilt" not in caplog.text


@pytest.mark.parametrize("kind", ["plan", "segmentation"])
def test_what_lies_beside_a_series_is_no_slice_of_it(series, tmp_path, kind):
    beside = series / "beside.dcm"
    if kind == "segmentation":
        write_seg(tmp_path / "seg.dcm", series).rename(beside)
    else:
        data = pydicom.dcmread(next(series.iterdir()))
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
        for name in ("Rows", "Columns", "PixelData", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            delattr(data, name)
        data.SeriesInstanceUID = generate_uid()
        data.save_as(beside)
    assert LoadCheckedImaged("image")({"image": series})["image"].shape == (1, WIDTH, HEIGHT, DEPTH)
    assert [item["image"] for item in find_inputs(str(series), str(tmp_path))] == [str(series)]


def test_each_slice_keeps_its_own_slope(series):
    def slope(k, data, file):
        data.RescaleSlope, data.RescaleIntercept = 1 if k == 0 else 0.013 * k, 0

    image = LoadCheckedImaged("image")({"image": change(series, slope)})["image"]
    assert [float(image[0, 0, 0, k]) for k in range(DEPTH)] == pytest.approx(
        [0, *(1.3 * k * k for k in range(1, DEPTH))]
    )


def test_what_is_padding_does_not_darken_the_image(tmp_path):
    rows = np.random.RandomState(0).randint(1000, 1100, (64, 64)).astype(np.uint16)
    rows[:20] = 0
    path = write_dicom(tmp_path / "a.dcm", rows)
    plain = LoadCheckedImaged("image")({"image": path})["image"].meta["percentiles"]
    data = pydicom.dcmread(path)
    data.add_new("PixelPaddingValue", "US", 0)
    data.save_as(path)
    shown = LoadCheckedImaged("image")({"image": path})["image"].meta["percentiles"]
    assert plain[0] == 0 and shown[0] >= 1000 and shown[1] == pytest.approx(plain[1], abs=2)


def frames_in(order):
    """Make the header of a file of several frames, which lie at these heights."""
    header, shared = pydicom.Dataset(), pydicom.Dataset()
    turned = pydicom.Dataset()
    turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = [turned]
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [shared], []
    for height in order:
        at, frame = pydicom.Dataset(), pydicom.Dataset()
        at.ImagePositionPatient = [0, 0, 3.0 * height]
        frame.PlanePositionSequence = [at]
        header.PerFrameFunctionalGroupsSequence.append(frame)
    return header


def test_frames_in_another_order_than_their_places_are_refused(tmp_path):
    for order in (range(7), range(6, -1, -1)):
        check_frames(tmp_path / "a.dcm", frames_in(order))
    with pytest.raises(InputError, match="frames in another order than their places"):
        check_frames(tmp_path / "a.dcm", frames_in([0, 2, 4, 6, 1, 3, 5]))


def test_a_segmentation_of_files_without_preamble_is_written(series, tmp_path):
    for file in series.iterdir():
        data = pydicom.dcmread(file)
        data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        data.file_meta, data.preamble = pydicom.dataset.FileMetaDataset(), None
        pydicom.dcmwrite(file, data, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert file.read_bytes()[128:132] != b"DICM"
    image = LoadCheckedImaged("image")({"image": series})["image"]
    labels = np.zeros((WIDTH, HEIGHT, DEPTH), np.uint8)
    labels[3, 4, 2] = 1
    dicom.write_segmentation(tmp_path / "seg.dcm", series, labels, np.asarray(image.affine), ["object"])
    back = on_grid_of(
        label_values(LoadCheckedImaged("label", label=True)({"label": tmp_path / "seg.dcm"})["label"]), image
    )
    assert np.array_equal(back[0].numpy(), labels)
