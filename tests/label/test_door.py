# SPDX-License-Identifier: Apache-2.0
"""What a hostile request can do to a real server: nothing, and it is told so in a sentence."""

import base64
import gzip
import http.client
import http.server
import io
import json
import shutil
import socket
import struct
import tarfile
import threading
import uuid

import itk
import numpy as np
import pytest

from tests.label.server import Server, copy_bundle, require_environment, wait_for
from tests.label.studies import make_lesions
from tests.label.webdriver import Browser

pytestmark = pytest.mark.slow

CODE = '__import__("os").system("touch {}") or "cpu"'
FIELDS = "foreground background roi slice label device model_filename result_extension result_dtype result_compress"
FIELDS += (
    " restore_label_idx save_label label_tag label_info client_id mask image model session logging skip_writer timeout"
)
FIELDS += " max_epochs val_split run_id tracking tracking_uri tracking_experiment_name pretrained gpus multi_gpu labels"


def ask(server, method, path, body=None, headers=None):
    """Send one request as it is; give its status, and what it says."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    connection.close()
    return response.status, text


def form(fields, files=()):
    """Make a form as a browser does: its body and its headers."""
    edge = uuid.uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()
    ]
    for key, name, content in files:
        head = f'--{edge}\r\nContent-Disposition: form-data; name="{key}"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    body = b"".join(parts) + f"--{edge}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={edge}"}


def infer(server, params, image="grey", model="efficientsam_2d", files=()):
    text = params if isinstance(params, str) else json.dumps(params)
    return ask(server, "POST", f"/infer/{model}?image={image}", *form({"params": text}, files))


@pytest.fixture
def trap(tmp_path):
    """A file that code would make."""
    path = tmp_path / "made_by_code"
    yield path
    assert not path.exists()


@pytest.mark.parametrize("start", ["$", "@", "%"])
@pytest.mark.parametrize("field", FIELDS.split())
def test_no_field_of_a_request_is_evaluated(server, trap, field, start):
    hostile = start + CODE.format(trap)
    for value in (hostile, [hostile], {hostile: hostile}, [[hostile, hostile, hostile]]):
        status, said = infer(server, {"foreground": [[30, 34, 0]], field: value})
        assert status in (200, 400, 404), said
        # without labels a training ends before it begins, and a bad field ends it earlier
        body = json.dumps({field: value})
        status, said = ask(server, "POST", "/activelearning/first", body, {"Content-Type": "application/json"})
        assert status in (200, 400), said


@pytest.mark.parametrize("field", ["max_epochs", "val_split", "device", "model_filename"])
def test_no_field_of_a_training_is_evaluated(server, trap, field):
    for value in ("$" + CODE.format(trap), "@device", True, [7], 1e9, {"a": 1}):
        body = json.dumps({field: value})
        status, said = ask(server, "POST", "/train/efficientsam", body, {"Content-Type": "application/json"})
        assert status == 400 and (field in said or "there are no weights" in said), said


def test_the_request_that_ran_code(server, trap):
    status, said = infer(server, {"device": f'$__import__("os").system("touch {trap}") or "cpu"'}, "/")
    assert status == 400 and "image is a name, without folders, got '/'" in said
    status, said = infer(server, {"device": f'$__import__("os").system("touch {trap}") or "cpu"'})
    assert status == 400 and "there is no device" in said and "choose cpu" in said


PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def test_an_image_that_3d_slicers_client_uploads_is_there_and_can_be_answered(server, tmp_path):
    for name, route in (("sent", None), ("put", "/datastore/image?image=put")):
        (tmp_path / f"{name}.png").write_bytes((server.root.parent / "studies" / "grey.png").read_bytes())
        if route is None:
            assert server.client.upload_image(str(tmp_path / "sent.png"), "sent")["image"] == "sent"
        else:
            body, headers = form({}, [("file", "put.png", (tmp_path / "put.png").read_bytes())])
            assert ask(server, "PUT", route, body, headers)[0] == 200
        click = {"foreground": [[30, 34, 0]]}
        assert np.array_equal(server.infer(name, **click)[0], server.infer("grey", **click)[0])
        assert ask(server, "DELETE", f"/datastore/image?id={name}")[0] == 200


def test_a_session_keeps_an_image_for_its_client(server):
    kept = server.client.create_session(f"{server.studies}/grey.png")["session_id"]
    click = {"foreground": [[30, 34, 0]], "result_extension": ".nrrd", "result_dtype": "uint8"}
    path, _ = server.client.infer("efficientsam_2d", "", click, session_id=kept)
    expected, _, _ = server.infer("grey", foreground=[[30, 34, 0]])
    assert np.array_equal(np.asarray(itk.imread(path)).T, expected)
    assert server.client.remove_session(kept) and ask(server, "GET", f"/session/{kept}")[0] == 404


OUTSIDE = ["../out", "../../out", "/tmp/out", "a/../../out", "..\\out", ".hidden", "a%00b", "..", "%2e%2e%2fout"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_is_written_or_read_outside_of_the_studies(server, tmp_path, name):
    def everything():
        return {p for p in server.root.parent.rglob("*") if "server.log" not in p.name and "/logs/" not in str(p)}

    before = everything()
    asked = [
        ("PUT", f"/datastore/image?image={name}", form({}, [("file", "a.png", PNG)])),
        ("PUT", f"/datastore/label?image=grey&tag={name}", form({}, [("label", "a.png", PNG)])),
        ("PUT", f"/datastore/label?image={name}", form({}, [("label", "a.png", PNG)])),
        ("GET", f"/datastore/image?image={name}", (None, None)),
        ("GET", f"/datastore/label?label={name}&tag=final", (None, None)),
        ("GET", f"/datastore/label?label=grey&tag={name}", (None, None)),
        ("DELETE", f"/datastore/label?id=grey&tag={name}", (None, None)),
        ("GET", f"/session/{name}", (None, None)),
        ("DELETE", f"/session/{name}", (None, None)),
        ("POST", f"/infer/efficientsam_2d?image={name}", form({"params": "{}"})),
        ("POST", f"/infer/efficientsam_2d?session_id={name}", form({"params": "{}"})),
        ("GET", f"/model/{name}", (None, None)),
    ]
    for method, path, (body, headers) in asked:
        status, said = ask(server, method, path, body, headers)
        assert status in (400, 404, 405), (method, path, said)
    status, said = infer(server, {"save_label": True, "label_tag": name, "foreground": [[30, 34, 0]]})
    assert status == 400 or "%" in name, said
    assert everything() - before <= {p for p in everything() if "%" in name and "labels" in str(p)}


def archive(member, kind="file"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(PNG)
        if kind == "link":
            info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc", 0
        tar.addfile(info, io.BytesIO(PNG))
    return file.getvalue()


@pytest.mark.parametrize(("member", "kind"), [("../out.png", "file"), ("/tmp/out.png", "file"), ("a", "link")])
def test_an_archive_that_leads_out_is_refused(server, member, kind):
    body, headers = form({}, [("files", "a.tar", archive(member, kind))])
    status, said = ask(server, "PUT", "/session/?uncompress=true", body, headers)
    assert status == 400 and "leads out of it" in said


def test_the_weights_are_not_changed_over_the_network(server):
    base = server.root / "models" / "efficient_sam_vitt_base.pth"
    before = base.read_bytes()
    for method in ("PUT", "DELETE"):
        status, said = ask(server, method, "/model/efficientsam_2d", *form({}, [("file", "a.pt", b"x")]))
        assert status == 403 and "not over the network" in said
    assert base.read_bytes() == before


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ("[" * 100_000, "params is not JSON"),
        ("7", "params is a JSON object"),
        ('{"roi": [' + "9" * 5000 + "]}", "params is not JSON"),
        ('{"slice": 1' + "0" * 4000 + "}", None),
        ('{"result_extension": ".exe"}', "there is no result_extension '.exe'"),
        ('{"result_dtype": "object"}', "there is no result_dtype"),
        ('{"result_compress": "perhaps"}', "result_compress is true or false"),
        ('{"device": 7}', "there is no device 7"),
        ('{"model_filename": "../x"}', "model_filename is a name"),
    ],
)
def test_parameters_that_are_none_are_a_400_with_a_sentence(server, params, says):
    status, said = infer(server, params)
    assert (status, says is None or says in said) == (200 if says is None else 400, True), said


def headers_only(claims):
    """A NIfTI that claims a size that its few bytes cannot hold."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *claims, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    return bytes(header)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii.gz", gzip.compress(headers_only((20000, 20000, 400)), mtime=0)),
        ("a.nii", headers_only((2000, 2000, 400))),
        ("a.nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2000 2000 400\nencoding: gzip\n\n\x1f\x8b"),
        ("a.nrrd", b"NRRD0004\ntype: short\ndimension: 3\nsizes: 9 9 9\nencoding: raw\ndata file: /etc/passwd\n\n"),
        ("a.mha", b"NDims = 3\nDimSize = 9 9 9\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n"),
        ("a.exe", b"MZ"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(server, name, content):
    import psutil

    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    status, said = infer(server, {"foreground": [[1, 1, 0]]}, "", files=[("file", name, content)])
    assert status == 400 and len(json.loads(said)["detail"]) < 300, said
    assert process.memory_info().rss < before + 300e6


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example:8000"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_pages_of_other_origins_are_refused(server, headers):
    for method, path in (("GET", "/info/"), ("POST", "/infer/efficientsam_2d?image=grey"), ("OPTIONS", "/info/")):
        status, said = ask(server, method, path, None, headers)
        assert status in (400, 403) and ("HOSTS" in said or "ORIGINS" in said), said


PAGE = """<script>
const params = new FormData();
params.append("params", '{"foreground": [[30, 34, 0]], "save_label": true, "label_tag": "stolen"}');
const asked = [
  fetch("SERVER/infer/efficientsam_2d?image=grey", {method: "POST", mode: "no-cors", body: params}).then(r => r.type),
  fetch("SERVER/datastore/?output=all").then(r => r.text()),
  fetch("SERVER/info/", {credentials: "include"}).then(r => r.text()),
  fetch("SERVER/train/efficientsam", {method: "POST", headers: {"Content-Type": "application/json"}, body: "{}"})
    .then(r => r.text()),
];
Promise.allSettled(asked).then(all => { window.answers = all.map(one => one.value || "refused"); });
</script>"""


@pytest.mark.skipif(not all(map(shutil.which, ("chromium", "chromedriver"))), reason="needs chromium and chromedriver")
def test_a_page_of_another_origin_in_a_browser_gets_and_changes_nothing(server, tmp_path):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.replace("SERVER", server.url).encode())

    elsewhere = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    browser = Browser(tmp_path, port)
    try:
        browser.open(f"http://127.0.0.1:{elsewhere.server_port}/")
        answers = wait_for(lambda: browser.run("return window.answers"))
        browser.open(f"{server.url}/info/")  # by a link or a hand it is let in
        assert "efficientsam_2d" in browser.run("return document.body.textContent")
    finally:
        browser.close()
        elsewhere.shutdown()
    assert answers == ["opaque", "refused", "refused", "refused"]  # an answer that the page cannot read
    assert "stolen" not in server.client.info()["datastore"]["label_tags"]
    assert server.status("/train/?check_if_running=true") == 404


def test_the_servers_own_pages_and_links_from_elsewhere_are_let_in(server):
    own = {"Origin": server.url, "Host": f"127.0.0.1:{server.port}"}
    assert ask(server, "GET", "/info/", None, own)[0] == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ask(server, "GET", "/info/", None, link)[0] == 200


def test_a_body_that_is_too_large_is_refused_at_its_header(server):
    status, said = ask(server, "PUT", "/datastore/image?image=a", None, {"Content-Length": str(10**12)})
    assert status == 413 and "at most" in said


@pytest.fixture
def guarded(tmp_path):
    """A server with a token, and an origin that may ask."""
    require_environment()
    make_lesions(tmp_path / "Patient #1 of 2020_01", 2)
    server = Server(
        copy_bundle(tmp_path), str(tmp_path / "Patient #1 of 2020_01"), {"origins": "https://viewer.example"}
    )
    server.environment["TOKEN"] = "s3cret"
    yield server
    server.stop()


def test_a_token_lets_in_and_an_origin_of_the_list(guarded):
    guarded.start(ready=401)
    assert ask(guarded, "GET", "/info/")[0] == 401
    basic = base64.b64encode(b"anybody:s3cret").decode()
    for shown in ("Bearer s3cret", f"Basic {basic}"):
        assert ask(guarded, "GET", "/info/", None, {"Authorization": shown})[0] == 200
    for shown in ("Bearer wrong", "Basic !", "Basic " + base64.b64encode(b"a:b").decode(), "s3cret"):
        assert ask(guarded, "GET", "/info/", None, {"Authorization": shown})[0] == 401
    allowed = {"Authorization": "Bearer s3cret", "Origin": "https://viewer.example"}
    assert ask(guarded, "GET", "/info/", None, allowed)[0] == 200
    # as 3D Slicer asks for a password
    assert guarded.client.auth_enabled()
    with pytest.raises(Exception, match="wrong password"):
        guarded.client.auth_token("anybody", "wrong")
    guarded.client.update_auth(guarded.client.auth_token("anybody", "s3cret"))
    assert guarded.client.auth_valid_token() and guarded.client.info()["models"]
    assert guarded.infer("lesion_0", foreground=[[20, 24, 0]])[0].any()
    assert np.any(guarded.infer("lesion_1", foreground=[[24, 27, 0]])[0])
