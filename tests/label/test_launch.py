# SPDX-License-Identifier: Apache-2.0
"""Starting a server: what is wrong is one sentence, and nothing is made of it; and disks that are full."""

import os
import shutil
import socket
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.e2e.bundle import ENVIRONMENT, ROOT
from tests.label.server import VENV, Server, copy_bundle, require_environment, wait_for
from tests.label.studies import make_lesions

pytestmark = pytest.mark.slow


def start(*words, within=60):
    """Start a server that ends by itself; give its status and what it says."""
    require_environment()
    command = [VENV / "bin" / "python", ROOT / "apps" / "label" / "serve.py", *map(str, words)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], **ENVIRONMENT}
    result = subprocess.run(command, capture_output=True, text=True, timeout=within, env=environment)
    assert "Ready" not in result.stdout and "Traceback" not in result.stderr
    return result.returncode, result.stderr.strip()


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    code, said = start("--studies", tmp_path / "mistypd")
    assert (code, said) == (1, f"error: {tmp_path}/mistypd is not there: give a folder of images")
    assert not (tmp_path / "mistypd").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    code, said = start("--studies", tmp_path / "a.png")
    assert (code, said) == (1, f"error: {tmp_path}/a.png is a file: give a folder of images")


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = start("--studies", tmp_path, "--port", port, within=10)
    assert code == 1 and said.startswith(f"error: port {port} of 127.0.0.1 is not to be had") and "PORT=8010" in said


@pytest.fixture
def mixed(tmp_path):
    """A folder with a space in its name, and with all kinds of files."""
    folder = tmp_path / "my studies"
    folder.mkdir()
    for name in "a.jpeg b.tiff c.bmp d.PNG e.JPG f.jpg".split():
        Image.new("L", (32, 32), 90).save(folder / name)
    Image.new("L", (32, 32), 90).save(folder / "f.png")
    for name in "g.txt h.dcm i.mhd empty.png .hidden.png".split():
        (folder / name).write_bytes(b"" if "png" in name else b"x")
    (folder / "series").mkdir()
    yield folder
    shutil.rmtree(tmp_path)


def test_it_says_what_is_offered_and_why_the_rest_is_not(mixed):
    server = Server(copy_bundle(mixed.parent), str(mixed), {"labels": "left ventricle, cyst"}).start()
    try:
        assert f"7 images found in {mixed}" in server.log
        for said in ("in a folder", "a header whose data", "empty: empty.png", "DICOM: convert", "not of a kind"):
            assert f"1 not, because {said}" in server.log
        assert "f.png is not offered, since f.jpg has the same name" in server.log
        info = server.client.info()
        assert info["datastore"]["total"] == 6 and info["labels"] == ["left ventricle", "cyst"]
        for name in "abcdef":
            assert server.infer(name, foreground=[[16, 16, 0]])[0].shape == (32, 32)
    finally:
        server.stop()


class Full(Server):
    """A server whose studies, or temporary files, lie on a small disk of its own."""

    where = ""

    def command(self):
        mount = f'mount -t tmpfs -o size=256k tmpfs "{self.where}" && cp "{self.root.parent}"/images/* "{self.studies}"'
        return ["unshare", "-rm", "sh", "-c", f'{mount}; exec "$@"', "sh", *super().command()]


@pytest.fixture
def images(tmp_path):
    """A folder of pictures, and one to mount a disk at."""
    require_environment()
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("no namespaces for users here")
    make_lesions(tmp_path / "images", 2)
    (tmp_path / "disk").mkdir()
    yield tmp_path
    shutil.rmtree(tmp_path)


def noisy(path, side=700):
    """Write a label that is larger than the disk."""
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (side, side), np.uint8)).save(path)
    return str(path)


def test_a_full_disk_saves_nothing_says_so_and_loses_nothing(images):
    server = Full(copy_bundle(images), str(images / "disk"))
    server.where = images / "disk"
    server.start()
    try:
        small = images / "small.png"
        Image.new("L", (64, 64), 1).save(small)
        assert server.client.save_label("lesion_0", str(small))["label"] == "lesion_0"
        for image in ("lesion_0", "lesion_1"):
            with pytest.raises(Exception) as caught:
                server.client.save_label(image, noisy(images / "large.png"))
            assert "Status: 507" in caught.value.msg and "nothing was saved: No space left" in caught.value.msg
        assert server.client.info()["datastore"]["completed"] == 1
        assert server.client.download_label("lesion_0", "final")
        assert server.infer("lesion_1", foreground=[[24, 27, 0]])[0].any()
    finally:
        server.stop()


def test_a_full_temporary_disk_is_a_sentence(images):
    (images / "studies").mkdir()
    server = Full(copy_bundle(images), str(images / "studies"), environment={"TMPDIR": str(images / "disk")})
    server.where = images / "disk"
    server.start()
    try:
        upload = noisy(images / "large.png")
        with pytest.raises(Exception) as caught:
            server.client.infer(
                "efficientsam_2d", "", {"foreground": [[9, 9]], "result_extension": ".png"}, file=upload
            )
        assert "Status: 507" in caught.value.msg and "No space left" in caught.value.msg
        assert server.infer("lesion_1", foreground=[[24, 27, 0]])[0].any()
    finally:
        server.stop()


def test_nothing_of_patients_stays_in_the_temporary_folder(images):
    server = Server(copy_bundle(images), str(images / "images"), environment={"TMPDIR": str(images / "disk")}).start()
    try:
        (own,) = (images / "disk").glob("efficientsam-label-*")
        (images / "bad.png").write_bytes(b"no picture")
        for upload in (images / "bad.png", images / "images" / "lesion_0.png"):
            try:
                server.client.infer("efficientsam_2d", "", {"foreground": [[9, 9]]}, file=str(upload))
            except Exception as error:
                assert "Status: 400" in error.msg  # pytest.raises would keep the first alone
        wait_for(lambda: list(own.iterdir()) == [], 20)  # an answer goes once it has been sent
    finally:
        server.stop()  # by a kill, which leaves the folder
    server.start()
    assert not own.exists() and len(list((images / "disk").glob("efficientsam-label-*"))) == 1
    server.stop(2)  # as Ctrl-C
    assert list((images / "disk").glob("efficientsam-label-*")) == []


def test_a_list_of_studies_that_was_spoilt_is_made_anew(images):
    (images / "images" / "datastore_v2.json").write_text("")
    server = Server(copy_bundle(images), str(images / "images")).start()
    try:
        assert server.client.info()["datastore"]["total"] == 2
        assert "it is kept as .broken" in server.log
    finally:
        server.stop()
