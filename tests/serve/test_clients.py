# SPDX-License-Identifier: Apache-2.0
"""The official client of PyPI, which 3D Slicer and napari use, against the server: every verb and every error."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from nnInteractive.inference.remote import (
    ServerAtCapacityError,
    SessionExpiredError,
    nnInteractiveRemoteInferenceSession,
)

from apps.serve.wire import pack_array
from tests.serve.serving import KEY, SHAPE, Server, dice, organ, scan
from tests.serve.test_wire import declared

SPACING = {"spacing": np.array([2.0, 1.0, 1.0])}


@pytest.fixture(scope="module")
def server():
    with Server(key=KEY, most_sessions=4) as server:
        yield server


@pytest.fixture
def client(server):
    with nnInteractiveRemoteInferenceSession(server.url, api_key=KEY) as client:
        yield client


@pytest.fixture
def started(client):
    client.set_image(scan(organ()), SPACING)
    client.set_target_buffer(np.zeros(SHAPE, np.uint8))
    return client


def test_a_client_learns_what_there_is(client):
    assert client.ping()
    assert client.supported_interactions == {
        "points": True,
        "bbox2d": True,
        "bbox3d": False,
        "scribble": True,
        "lasso": True,
    }
    assert client.license == "Apache-2.0" and client.supports_undo and client.do_autozoom
    assert len(client.preferred_scribble_thickness) == 3
    assert client.heartbeat() == pytest.approx(600, abs=5)
    assert client.lease_status()["idle_timeout_seconds"] == 600


def test_a_click_comes_back_as_the_box_that_has_changed(started):
    assert started.original_image_shape == (1, *SHAPE)
    place = started.add_point_interaction([14, 18, 22], include_interaction=True)
    assert dice(started.target_buffer, organ()) > 0.9
    found = np.argwhere(started.target_buffer)
    assert place == [[low, high + 1] for low, high in zip(found.min(0).tolist(), found.max(0).tolist())]
    assert started.add_point_interaction([14, 18, 22], include_interaction=True) is None  # nothing has changed


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, bool])
def test_masks_have_the_type_of_the_clients_buffer(client, dtype):
    client.set_image(scan(organ()), SPACING)
    client.set_target_buffer(np.zeros(SHAPE, dtype))
    client.add_point_interaction([14, 18, 22], True)
    assert set(np.unique(client.target_buffer).tolist()) == {0, 1}


def test_automatic_zoom_follows_the_object_and_without_it_one_slice_is_answered(started):
    started.set_do_autozoom(False)
    assert started.add_point_interaction([14, 18, 22], True)[0] == [14, 15]
    started.set_do_autozoom(True)
    started.add_point_interaction([15, 18, 22], True)
    assert dice(started.target_buffer, organ()) > 0.9


def test_boxes_scribbles_and_lassos_ask_on_one_slice(started):
    started.set_do_autozoom(False)
    assert started.add_bbox_interaction([[14.0, 15.0], [9.5, 27.2], [10.1, 34.0]], True)[0] == [14, 15]
    started.reset_interactions()
    assert not started.target_buffer.any()
    line = np.ones((1, 1, 9), np.uint8)
    assert started.add_scribble_interaction(line, True, interaction_bbox=[[13, 14], [18, 19], [18, 27]])[0] == [13, 14]
    whole = np.zeros(SHAPE, np.uint8)
    whole[12, 14:23, 14:28] = 1
    assert started.add_lasso_interaction(whole, True)[0] == [12, 13]
    with pytest.raises(httpx.HTTPStatusError) as refused:
        started.add_bbox_interaction([[10, 20], [9, 27], [10, 34]], True)
    assert refused.value.response.status_code == 400
    assert "draw it in two dimensions" in refused.value.response.json()["detail"]


def test_interactions_are_taken_back_one_by_one(started):
    assert not started.undo()
    started.add_point_interaction([14, 18, 22], True)
    first = started.target_buffer.copy()
    started.add_point_interaction([18, 3, 3], False)
    assert not np.array_equal(started.target_buffer, first)
    assert started.undo() and np.array_equal(started.target_buffer, first)
    assert started.undo() and not started.target_buffer.any()
    assert not started.undo()


def test_interactions_can_wait_for_one_answer(started):
    started.set_do_autozoom(False)
    assert started.add_point_interaction([14, 18, 22], True, run_prediction=False) is None
    assert started.add_point_interaction([15, 18, 22], True, run_prediction=False) is None
    assert not started.target_buffer.any()
    assert started._predict()[0] == [14, 16]
    assert started._predict() is None


def test_a_segmentation_is_refined(started):
    given = organ().astype(np.uint8)
    given[17:] = 0
    assert started.add_initial_seg_interaction(given) is None
    assert np.array_equal(started.target_buffer, given)
    started.add_point_interaction([20, 18, 26], True)
    assert np.array_equal(started.target_buffer[:17], given[:17]) and started.target_buffer[17:22].any()
    assert started.undo() and np.array_equal(started.target_buffer, given)


def test_segments_of_slicer_are_gone_back_to_and_refined(started):
    """Slicer sends a segment anew whenever another one is chosen, and its own edits with it."""
    started.add_point_interaction([14, 18, 22], True)
    first = started.target_buffer.copy()
    first[14, :3, :3] = 1  # painted in Slicer
    started.reset_interactions()
    started.set_do_autozoom(False)
    started.add_point_interaction([2, 2, 2], True)
    started.reset_interactions()
    started.add_initial_seg_interaction(first)
    started.set_do_autozoom(True)
    started.add_point_interaction([20, 18, 26], True)
    assert np.array_equal(started.target_buffer[:18], first[:18])


def test_a_picture_of_napari_has_one_slice(client):
    truth = organ()[14:15]
    client.set_image(np.where(truth, 200, 20)[None].astype(np.uint8), {"spacing": [1, 1, 1]})
    client.set_target_buffer(np.zeros(truth.shape, np.uint8))
    client.add_point_interaction([0, 18, 22], True)
    assert np.array_equal(client.target_buffer > 0, truth)


def test_who_has_not_the_key_is_refused(server):
    for key in (None, "wrong", KEY + "x"):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            nnInteractiveRemoteInferenceSession(server.url, api_key=key)
        assert refused.value.response.status_code == 401
    assert httpx.get(f"{server.url}/v2/models").status_code == 401
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_more_clients_than_there_may_be_are_told_to_wait():
    with Server(most_sessions=1) as server:
        first = nnInteractiveRemoteInferenceSession(server.url)
        with pytest.raises(ServerAtCapacityError, match="1 clients are served"):
            nnInteractiveRemoteInferenceSession(server.url)
        assert httpx.post(f"{server.url}/claim").headers["Retry-After"].isdigit()
        first.close()
        nnInteractiveRemoteInferenceSession(server.url).close()


def test_a_client_whose_lease_is_gone_is_told_so(server):
    client = nnInteractiveRemoteInferenceSession(server.url, api_key=KEY)
    client._http.headers["X-Lease-Token"] = "unknown"
    for ask in (
        lambda: client.add_point_interaction([1, 1, 1], True),
        lambda: client.set_image(scan(organ())),
        lambda: client.add_scribble_interaction(np.ones(SHAPE, np.uint8), True),
        client.undo,
        client.heartbeat,
        client.lease_status,
    ):
        with pytest.raises(SessionExpiredError, match="connect again"):
            ask()
    client.close()


def test_a_session_ends_when_it_is_not_used():
    with Server(idle_seconds=0.2) as server:
        client = nnInteractiveRemoteInferenceSession(server.url)
        threading.Event().wait(0.4)
        with pytest.raises(SessionExpiredError):
            client.set_image(scan(organ()))
        client.close()


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda c: c.add_point_interaction([1, 1, 1], True), "send one first"),
        (lambda c: c.set_image(np.zeros((2, 3, 4, 5), np.int16)), "1 or 3 channels"),
        (lambda c: c.set_image(np.zeros((1, 3, 4, 5)), {"spacing": "wide"}), "spacing is a list"),
        (lambda c: c.set_image(np.zeros((1, 3, 4, 5)), {"spacing": [1, 2]}), "three positive numbers"),
    ],
    ids=range(4),
)
def test_images_that_cannot_be_used_are_refused_in_a_sentence(client, ask, sentence):
    with pytest.raises(httpx.HTTPStatusError) as refused:
        ask(client)
    assert refused.value.response.status_code == 400 and sentence in refused.value.response.json()["detail"]


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda c: c.add_point_interaction([1, 1], True), "3 indices"),
        (lambda c: c.add_point_interaction([1, 1, 99], True), "outside the image"),
        (lambda c: c.add_point_interaction([1, 1, float("nan")], True), "3 indices"),
        (lambda c: c.add_point_interaction(["a", 1, 1], True), "coordinates"),
        (lambda c: c.add_bbox_interaction([[1, 2], [3, 4]], True), "low and a high index"),
        (lambda c: c.add_bbox_interaction([[90, 91], [3, 4], [3, 4]], True), "nothing of the image"),
        (lambda c: c.add_scribble_interaction(np.ones((2, 2, 2), np.uint8), True), "has the shape"),
        (lambda c: c.add_lasso_interaction(np.zeros(SHAPE, np.uint8), True), "nothing was drawn"),
        (
            lambda c: c.add_scribble_interaction(np.ones((1, 1, 1)), True, interaction_bbox=[["a", 1]]),
            "pairs of numbers",
        ),
        (lambda c: c.set_target_buffer(np.zeros((1, 2, 3), np.uint8)), "the mask is"),
        (lambda c: c._post_json("/set_target_buffer", {"shape": list(SHAPE), "dtype": "object"}), "type of a mask"),
        (lambda c: c._post_json("/set_target_buffer", {"dtype": "uint8"}), "shape: Field required"),
        (lambda c: c._post_binary("/set_image", {}, declared((1, 10**5, 10**5, 10**2))), "this server takes"),
        (lambda c: c._post_binary("/set_image", {}, b"no array"), "no packed array"),
        (lambda c: c._post_binary("/set_image", {"image_properties": 3}, b""), "object of JSON"),
        (
            lambda c: c._post_binary("/add_initial_seg_interaction", {}, pack_array(np.ones((2, 2)))),
            "the segmentation is",
        ),
        (
            lambda c: c._post_binary("/add_lasso_interaction", {}, pack_array(np.ones(SHAPE))),
            "include_interaction is true",
        ),
    ],
    ids=range(17),
)
def test_slips_are_refused_in_a_sentence_and_lose_nothing(started, ask, sentence):
    started.add_point_interaction([14, 18, 22], True)
    kept = started.target_buffer
    with pytest.raises(httpx.HTTPStatusError) as refused:
        ask(started)
    assert refused.value.response.status_code == 400 and sentence in refused.value.response.json()["detail"]
    started.target_buffer = kept
    assert started.add_point_interaction([14, 18, 22], True) is None  # the object is as it was
    assert dice(kept, organ()) > 0.9


@pytest.mark.parametrize("meta", ["{", "[1]", "null", "[" * 5000])
def test_headers_that_are_no_json_are_refused(started, meta):
    headers = {"X-Meta": meta}
    found = started._http.post("/add_scribble_interaction", content=pack_array(np.ones(SHAPE)), headers=headers)
    assert found.status_code == 400 and "JSON" in found.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=["host", "origin", "fetch"],
)
def test_web_pages_are_not_served(server, headers):
    found = httpx.post(f"{server.url}/claim", headers={"Authorization": f"Bearer {KEY}", **headers})
    assert found.status_code in (400, 403)


def test_eight_clients_get_their_own_answers():
    centres = [(10 + k, 14 + k, 16 + 2 * k) for k in range(8)]

    def annotate(centre):
        truth = organ(centre=centre, tilt=0.1)
        answers = []
        with nnInteractiveRemoteInferenceSession(server.url) as client:
            client.set_image(scan(truth), SPACING)
            client.set_target_buffer(np.zeros(SHAPE, np.uint8))
            for turn in range(10):
                client.set_do_autozoom(turn % 2 == 0)
                client.add_point_interaction([centre[0] + turn % 3, *centre[1:]], True)
                answers.append(client.target_buffer.copy())
                if turn % 4 == 3:
                    client.undo()
        return answers

    with Server(most_sessions=8) as server:
        alone = [annotate(centre) for centre in centres]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(annotate, centres))
    assert all(np.array_equal(a, b) for one, other in zip(alone, together) for a, b in zip(one, other))
    assert len({json.dumps(each[0].tolist()) for each in together}) == 8


@pytest.mark.parametrize("path", ["/add_point_interaction", "/add_bbox_interaction", "/predict", "/nothing"])
@pytest.mark.parametrize("is_told", [True, False])
def test_bodies_that_are_too_large_are_refused_as_they_come(started, path, is_told):
    text = b'{"coordinates": [' + b"1, " * 2**19 + b"1]}"
    content = text if is_told else (text[start : start + 2**16] for start in range(0, len(text), 2**16))
    found = started._http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert found.status_code in (413, 404) and (found.status_code == 413 or path == "/nothing")
    if path != "/nothing":
        assert "1 MiB that it may have" in found.json()["detail"]


@pytest.mark.parametrize("length", ["-1", "x", str(2**40)])
def test_a_length_that_is_no_number_or_too_large_is_refused(server, length):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /set_image HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        status = connection.recv(100).split()[1]
    assert status in (b"400", b"413")
