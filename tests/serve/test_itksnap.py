# SPDX-License-Identifier: Apache-2.0
"""Requests as ITK-SNAP's source sends them: what there is, slices and volumes, clicks and drawings, and the end."""

import base64
import gzip
import json

import httpx
import numpy as np
import pytest

from tests.serve.serving import SHAPE, Server, dice, organ, scan


@pytest.fixture(scope="module")
def server():
    with Server(most_sessions=3) as server:
        yield server


class Snap:
    """A session of ITK-SNAP."""

    def __init__(self, server, model):
        self.http = httpx.Client(base_url=server.url)
        self.session = self.get(f"/v2/start_session/{model}")["session_id"]

    def get(self, path, **query):
        found = self.http.get(path, params=query)
        assert found.status_code == 200, found.text
        return found.json()

    def post(self, path, array, spacing, **query):
        """Send an array (Z, Y, X) or (Y, X), or (Y, X, 3) in colour."""
        count = array.shape[-1] if array.shape[-1] == 3 else 1
        sides = array.shape[:-1] if count == 3 else array.shape
        known = {
            "dimensions": list(sides[::-1]),
            "spacing": spacing,
            "origin": [0.0] * len(sides),
            "direction": np.eye(len(sides)).ravel().tolist(),
            "components_per_pixel": count,
        }
        body = gzip.compress(array.astype("<f4").tobytes())
        return self.http.post(path, params=query, data={"metadata": json.dumps(known)}, files={"file": ("raw", body)})

    def mask(self, answer, shape):
        assert answer["status"] == "success"
        return np.frombuffer(gzip.decompress(base64.b64decode(answer["result"])), np.int8).reshape(shape)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.get(f"/v2/end_session/{self.session}")
        self.http.close()


def test_itk_snap_learns_what_there_is(server):
    status = httpx.get(f"{server.url}/status").json()
    assert status["status"] == "ok" and tuple(map(int, status["version"].split("."))) >= (0, 1, 0)
    models = {each["dimensions"]: each for each in httpx.get(f"{server.url}/v2/models").json()["models"]}
    assert models[2]["channels"] == [1, 3] and "point" in models[2]["interactions"]
    assert models[3]["channels"] == [1]


def test_a_volume_is_segmented_from_one_click(server):
    with Snap(server, "EfficientSAM-3D") as snap:
        assert snap.post(f"/upload_raw/{snap.session}", scan(organ())[0], [1.0, 1.0, 2.0]).status_code == 200
        answer = snap.get(f"/v2/process_point_interaction/{snap.session}", point=[22, 18, 14], foreground="true")
        assert dice(snap.mask(answer, SHAPE), organ()) > 0.9
        assert snap.get(f"/reset_interactions/{snap.session}") == {"status": "success"}
        answer = snap.get(f"/process_point_interaction/{snap.session}", x=3, y=3, z=18, foreground="false")
        assert not snap.mask(answer, SHAPE).any()
        answer = snap.get(f"/v2/process_point_interaction/{snap.session}", point=[22, 18, 14], foreground="true")
        assert not snap.mask(answer, SHAPE)[18:].any()


@pytest.mark.parametrize("colour", [False, True])
def test_a_slice_is_segmented_by_clicks_scribbles_and_lassos(server, colour):
    truth = organ()[14]
    image = np.where(truth, 200.0, 20.0)
    with Snap(server, "EfficientSAM-2D") as snap:
        shown = np.repeat(image[..., None], 3, -1) if colour else image
        assert snap.post(f"/v2/upload_raw/{snap.session}", shown, [1.0, 1.0]).status_code == 200
        answer = snap.get(f"/v2/process_point_interaction/{snap.session}", point=[22, 18], foreground="true")
        assert np.array_equal(snap.mask(answer, truth.shape) > 0, truth)
        for kind, rows in (("scribble", slice(18, 19)), ("lasso", slice(14, 23))):
            snap.get(f"/v2/reset_interactions/{snap.session}")
            drawn = np.zeros(truth.shape)
            drawn[rows, 16:28] = 1
            answer = snap.post(f"/process_{kind}_interaction/{snap.session}", drawn, [1, 1], foreground="true").json()
            assert np.array_equal(snap.mask(answer, truth.shape) > 0, truth)


def test_sessions_end_and_no_more_are_served_than_there_may_be(server):
    held = [Snap(server, "EfficientSAM-3D") for _ in range(3)]
    assert httpx.get(f"{server.url}/v2/start_session/EfficientSAM-3D").status_code == 503
    for each in held:
        each.__exit__()
    gone = httpx.get(f"{server.url}/v2/process_point_interaction/{held[0].session}", params={"point": [1, 1, 1]})
    assert gone.status_code == 410 and "connect again" in gone.json()["detail"]
    with Snap(server, "EfficientSAM-3D"):
        pass


@pytest.mark.parametrize(
    ("metadata", "body", "sentence"),
    [
        ("{", b"", "metadata is JSON"),
        ("[]", b"", "metadata is JSON"),
        ({"spacing": [1, 1]}, b"", "metadata is JSON"),
        ({"dimensions": [1, 2, 3, 4]}, b"", "two or three dimensions"),
        ({"dimensions": ["a", 2]}, b"", "two or three dimensions"),
        ({"dimensions": [2, 2], "spacing": ["x", 1]}, b"", "metadata is JSON"),
        ({"dimensions": [10**5, 10**5, 10**3]}, b"", "this server takes"),
        ({"dimensions": [2, -2]}, b"", "one pixel at least"),
        ({"dimensions": [2, 2]}, b"no gzip", "not compressed by gzip"),
        ({"dimensions": [2, 2]}, gzip.compress(bytes(10**6)), "has 16 bytes, and 17 or more came"),
        ({"dimensions": [2, 2], "components_per_pixel": 2}, gzip.compress(bytes(32)), "1 or 3 channels"),
    ],
    ids=range(11),
)
def test_images_that_cannot_be_used_are_refused_in_a_sentence(server, metadata, body, sentence):
    with Snap(server, "EfficientSAM-2D") as snap:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        path = f"/upload_raw/{snap.session}"
        found = snap.http.post(path, data={"metadata": text}, files={"file": ("raw", body)})
        assert found.status_code == 400 and sentence in found.json()["detail"]


def test_what_there_is_not_is_refused_in_a_sentence(server):
    found = httpx.get(f"{server.url}/v2/start_session/SAM2")
    assert found.status_code == 400 and "choose EfficientSAM-2D" in found.json()["detail"]
    with Snap(server, "EfficientSAM-3D") as snap:
        path = f"{server.url}/v2/process_point_interaction/{snap.session}"
        assert "send one first" in httpx.get(path, params={"point": [1, 1, 1]}).json()["detail"]
        snap.post(f"/upload_raw/{snap.session}", scan(organ())[0], [1.0, 1.0, 2.0])
        assert "3 indices" in httpx.get(path, params={"point": [1, 1, 1, 1]}).json()["detail"]
        assert "outside" in httpx.get(path, params={"point": [1, 1, 99]}).json()["detail"]
        assert httpx.get(path, params={"point": ["a", 1]}).status_code == 400
