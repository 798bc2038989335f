# SPDX-License-Identifier: Apache-2.0
"""The page that runs the exported network in Chromium: a click there gives the mask that PyTorch gives."""

import functools
import http.server
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.data import make_sample
from scripts.export.modules import FRAME, SamDecoder, SamEncoder
from scripts.export.writers import write_sam
from scripts.networks import EfficientSAM, load_weights
from tests.label.server import wait_for
from tests.label.webdriver import ELEMENT, Browser

ROOT = Path(__file__).parents[2]
TOOLS = ("chromium", "chromedriver", "npm")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"),
]
CLICK, BACKGROUND, BOX = (100, 80), (20, 180), (40, 30, 200, 150)  # (x, y) in pixels of the picture


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def network():
    network = load_weights(EfficientSAM("vitt", 256, align_points=True), ROOT / "models/efficient_sam_vitt_base.pth")
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A lop-sided picture of a drawn lesion."""
    sample = make_sample(tmp_path_factory.mktemp("sample") / "data")
    path = tmp_path_factory.mktemp("picture") / "lesion.png"
    Image.open(sample / "images" / "lesion_003.png").crop((0, 30, 256, 220)).save(path)
    return path


@pytest.fixture(scope="module")
def address(network, tmp_path_factory):
    """Serve the page with its packages and a network."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copytree(ROOT / "docs" / "browser", folder / "page", ignore=shutil.ignore_patterns("node_modules", "models"))
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    subprocess.run(install, cwd=folder / "page", check=True, timeout=300)
    (folder / "page" / "models").mkdir()
    with torch.no_grad():
        write_sam(network, folder / "page" / "models")
    handler = functools.partial(Handler, directory=folder / "page")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
    server.shutdown()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def browser(address, picture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    browser = Browser(folder, port)
    try:
        behaviour = {"cmd": "Browser.setDownloadBehavior", "params": {"behavior": "allow", "downloadPath": str(folder)}}
        browser.send("POST", "/goog/cdp/execute", behaviour)
        browser.folder = folder
        browser.open(address)
        wait_for(lambda: said(browser) == "Open a picture", 120)
        found = browser.send("POST", "/element", {"using": "css selector", "value": "#file"})
        browser.send("POST", f"/element/{found[ELEMENT]}/value", {"text": str(picture)})
        wait_for(lambda: said(browser) == "Click on an object", 120)
        yield browser
    finally:
        browser.close()


def said(browser):
    return browser.run("return document.getElementById('say').textContent")


def on_page(browser, x, y):
    """Give where a pixel of the picture is on the page."""
    place = "const { x, y, width, height } = document.getElementById('drawn').getBoundingClientRect();"
    box = browser.run(f"{place} return [x, y, width, height]")
    width, height = browser.run("const c = document.getElementById('drawn'); return [c.width, c.height]")
    return round(box[0] + (x + 0.5) * box[2] / width), round(box[1] + (y + 0.5) * box[3] / height)


def press(browser, actions):
    """Act with the mouse and wait for the answer."""
    browser.run("document.getElementById('say').textContent = ''")
    browser.send("POST", "/actions", {"actions": actions})
    wait_for(lambda: "predicted IoU" in said(browser), 60)


def mouse(*steps):
    return {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": list(steps)}


def move(x, y):
    return {"type": "pointerMove", "duration": 50, "x": x, "y": y}


DOWN, UP = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}


def saved_mask(browser):
    """Save the mask as a user does, and read the file."""
    path = browser.folder / "lesion_mask.png"
    path.unlink(missing_ok=True)
    browser.click_on("return document.getElementById('save')")
    wait_for(lambda: path.exists() and path.stat().st_size > 0, 30)
    wait_for(lambda: not list(browser.folder.glob("*.crdownload")), 30)
    return np.asarray(Image.open(path).convert("L")) > 127


def rounds_of(network, picture, rounds):
    """Give PyTorch's mask after rounds of points and labels, each of which goes on from the mask before."""
    image = torch.from_numpy(np.array(Image.open(picture).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    size = torch.tensor(image.shape[2:]).float()
    low, shown, points, labels = torch.zeros(1, 1, 256, 256), torch.zeros(1), [], []
    for xy, kinds in rounds:
        points, labels = [*points, *xy], [*labels, *kinds]
        prompts = torch.tensor([points]).float() * FRAME / float(size.max()), torch.tensor([labels]).float()
        mask, _, low = SamDecoder(network)(SamEncoder(network)(image), *prompts, low, shown, size)
        shown = torch.ones(1)
    return (mask[0, 0] > 0).numpy()


def agree(mask, expected):
    return mask.shape == expected.shape and (mask == expected).mean() >= 0.9999


def test_clicks_a_correction_and_undo_give_pytorchs_masks(browser, network, picture, tmp_path):
    press(browser, [mouse(move(*on_page(browser, *CLICK)), DOWN, UP)])
    first = rounds_of(network, picture, [([CLICK], [1])])
    assert 0.01 < first.mean() < 0.9
    assert agree(saved_mask(browser), first)
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000

    shift = {"type": "key", "id": "keys", "actions": [{"type": "pause"}, {"type": "keyDown", "value": "\ue008"}]}
    up = {"type": "key", "id": "keys", "actions": [{"type": "keyUp", "value": "\ue008"}]}
    browser.send("POST", "/actions", {"actions": [shift]})
    press(browser, [mouse(move(*on_page(browser, *BACKGROUND)), DOWN, UP)])
    browser.send("POST", "/actions", {"actions": [up]})
    assert agree(saved_mask(browser), rounds_of(network, picture, [([CLICK], [1]), ([BACKGROUND], [0])]))

    browser.click_on("return document.getElementById('undo')")
    assert agree(saved_mask(browser), first)


def test_a_drag_is_a_box(browser, network, picture):
    browser.click_on("return document.getElementById('clear')")
    wait_for(lambda: browser.run("return document.getElementById('save').disabled"), 30)
    x0, y0, x1, y1 = BOX
    press(browser, [mouse(move(*on_page(browser, x0, y0)), DOWN, move(*on_page(browser, x1, y1)), UP)])
    assert agree(saved_mask(browser), rounds_of(network, picture, [([(x0, y0), (x1, y1)], [2, 3])]))


def test_nothing_is_asked_of_any_other_place(browser, address):
    asked = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert asked
    assert all(url.startswith((address.rsplit("/", 1)[0], "blob:")) for url in asked)
