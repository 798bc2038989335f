# SPDX-License-Identifier: Apache-2.0
"""One session in OHIF: Orthanc with a series, the server, a browser that clicks. Prints what came of it as JSON.

    unshare -rn sh -c 'ip link set lo up && python -m tests.label.ohif_session FOLDER'

It runs in a network of its own, where ports are free (OHIF looks for the server at 8000) and nobody else can reach
Orthanc, whose old version in Debian listens to everyone.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import itk
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from tests.label.server import Server, copy_bundle, dice, require_environment, wait_for
from tests.label.webdriver import Browser

ORTHANC, SERVER, DRIVER = 8042, 8000, 9515
SHAPE, CENTRE, RADII = (96, 80, 12), (40, 50, 6), (14, 10, 5)


def lesion():
    """Give a phantom in HU and the truth of its lesion, in index order (X, Y, Z)."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    truth = (((grid - CENTRE) / RADII) ** 2).sum(-1) < 1
    body = (((grid[..., :2] - [48, 40]) / [44, 36]) ** 2).sum(-1) < 1
    image = np.where(body, 40, -900) + np.random.RandomState(0).normal(0, 8, SHAPE)
    image[truth] += 210
    return image.astype(np.int16), truth


def upload(image, url):
    """Store a CT series in Orthanc; give the study's UID."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(image.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Nobody", "0", "", "O"
        data.StudyDate = data.SeriesDate = data.ContentDate = "20260101"
        data.StudyTime = data.SeriesTime = data.ContentTime = "120000"
        data.AccessionNumber, data.StudyID, data.SeriesNumber, data.InstanceNumber = "", "1", 1, k + 1
        data.Modality, data.StudyDescription, data.SeriesDescription, data.Manufacturer = "CT", "phantom", "ct", ""
        data.Rows, data.Columns, data.PixelSpacing, data.SliceThickness = image.shape[1], image.shape[0], [0.9, 0.9], 2
        data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-40.0, -30.0, 10.0 + 2 * k]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.RescaleIntercept, data.RescaleSlope, data.WindowCenter, data.WindowWidth = 0, 1, 40, 800
        data.PixelData = np.ascontiguousarray(image[:, :, k].T).tobytes()
        path = Path("/tmp") / f"{os.getpid()}.dcm"
        data.save_as(path, enforce_file_format=True)
        request = urllib.request.Request(f"{url}/instances", path.read_bytes(), method="POST")
        urllib.request.urlopen(request).read()
        path.unlink()
    return study


def start_orthanc(folder):
    """Start Orthanc with its DICOMweb plugin on a storage in a folder."""
    settings = {
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "HttpPort": ORTHANC,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": True,
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = open(folder / "orthanc.log", "w")
    process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    wait_for(lambda: get(f"http://127.0.0.1:{ORTHANC}/system"))
    return process


def get(url, accept="application/json"):
    """Get JSON, or nothing where nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept})) as response:
            return json.load(response)
    except OSError:
        return None


def mask_of(body, folder):
    """Read the mask out of an answer of the server, which is a multipart of JSON and NRRD."""
    start = body.index(b"NRRD000")
    (folder / "answer.nrrd").write_bytes(body[start:])
    answer = itk.imread(folder / "answer.nrrd")
    upwards = answer.GetDirection()(2, 2) > 0  # as the truth is
    return np.asarray(answer).T[..., :: 1 if upwards else -1]


def click_in_ohif(browser, server, study, folder):
    """Connect, choose model and label, click on the lesion of the slice that is shown, run; give the mask."""
    browser.open(f"{server.url}/ohif/monai-label?StudyInstanceUIDs={study}")
    text = "return [...document.querySelectorAll(arguments[0])].find(e => e.textContent.includes(arguments[1]))"
    wait_for(lambda: browser.run("return document.querySelectorAll('canvas').length > 0"))
    if browser.run(f"return !!(() => {{ {text} }})()", "button", "Confirm"):
        browser.click_on(text, "button", "Confirm")
    address = "[...document.querySelectorAll('input')].find(e => e.value.includes('127.0.0.1'))"
    browser.click_on(f"const e = {address}; return e && e.closest('table').querySelector('button')")
    browser.click_on(text, "label.tab-label", "Point")
    model = wait_for(
        lambda: browser.run(
            "const s = [...document.querySelectorAll('select')].find(e => e.textContent.includes('efficientsam_2d'));"
            "if (!s) return null;"
            "const set = Object.getOwnPropertyDescriptor(HTMLSelectElement.prototype, 'value').set;"
            "set.call(s, 'efficientsam_2d'); s.dispatchEvent(new Event('change', {bubbles: true})); return s.value"
        )
    )
    assert model == "efficientsam_2d"
    browser.click_on(text, "tr.clickable-row", "object")
    time.sleep(1)  # until the page has changed its tool
    x, y, width, height = browser.run(
        "const b = document.querySelector('canvas').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
    )
    scale = 0.9 * min(width / SHAPE[0], height / SHAPE[1])  # the image fills the viewport, but for a margin
    browser.screenshot(folder / "before.png")
    at = [(CENTRE[i] - SHAPE[i] / 2) * scale for i in (0, 1)]
    browser.click_at(x + width / 2 + at[0], y + height / 2 + at[1])
    time.sleep(2)  # until the page has drawn the point
    tab = "[...document.querySelectorAll('div.tab')].find(e => e.textContent.includes('Point Prompts'))"
    browser.responses("/infer/")
    browser.click_on(f"return [...{tab}.querySelectorAll('button')].find(e => e.getBoundingClientRect().width)")
    browser.screenshot(folder / "clicked.png")
    body = wait_for(lambda: browser.responses("/infer/"))[0]
    time.sleep(2)  # until the page has drawn the mask
    browser.screenshot(folder / "after.png")
    return mask_of(body, folder)


def main(folder):
    """Run the session; print its results."""
    require_environment()
    image, truth = lesion()
    orthanc = start_orthanc(folder)
    server = browser = None
    try:
        study = upload(image, f"http://127.0.0.1:{ORTHANC}")
        server = Server(copy_bundle(folder), f"http://127.0.0.1:{ORTHANC}/dicom-web").start(SERVER)
        browser = Browser(folder, DRIVER)
        mask = click_in_ohif(browser, server, study, folder)
        slices = np.flatnonzero(mask.any((0, 1))).tolist()
        results = {"slices": slices, "shape": list(mask.shape)}
        if slices:
            results["dice"] = dice(mask[..., slices[0]], truth[..., slices[0]])
        results["seg"] = save_as_seg(server, truth, folder)
        results["next"] = server.client.next_sample("first", {})
        print(json.dumps(results))
    finally:
        if browser is not None:
            browser.close()
        if server is not None:
            server.stop()
        orthanc.send_signal(signal.SIGTERM)
        orthanc.wait(timeout=30)


def save_as_seg(server, truth, folder):
    """Save a label as 3D Slicer does; it becomes a DICOM SEG in Orthanc, and is read back; give its Dice."""
    name = server.client.next_sample("first", {})["id"]
    label = folder / "label.nrrd"
    answer, _ = server.client.infer("efficientsam_2d", name, {"result_extension": ".nrrd", "slice": 0})
    grid = itk.imread(answer)  # the server's grid of the series
    flip = 1 if grid.GetDirection()(2, 2) > 0 else -1
    saved = itk.image_from_array(np.ascontiguousarray(truth[..., ::flip].astype(np.uint8).T))
    saved.CopyInformation(grid)
    itk.imwrite(saved, label)
    info = {"label_info": [{"name": "object", "idx": 1, "model_name": "efficientsam_2d"}]}
    server.client.save_label(name, str(label), params=info)
    url = f"http://127.0.0.1:{ORTHANC}"
    kinds = {name: get(f"{url}/series/{name}")["MainDicomTags"]["Modality"] for name in get(f"{url}/series")}
    seg = next(name for name, kind in kinds.items() if kind == "SEG")
    with urllib.request.urlopen(f"{url}/instances/{get(f'{url}/series/{seg}')['Instances'][0]}/file") as response:
        (folder / "seg.dcm").write_bytes(response.read())
    data = dcmread(folder / "seg.dcm")
    frames = [
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in data.PerFrameFunctionalGroupsSequence
    ]
    back = np.zeros(SHAPE, bool)
    for height, rows in zip(frames, data.pixel_array.reshape(len(frames), *SHAPE[1::-1])):
        back[..., round((height - 10) / 2)] |= rows.T > 0
    return {
        "modalities": sorted(kinds.values()),
        "label": str(data.SegmentSequence[0].SegmentLabel),
        "dice": dice(back, truth),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
