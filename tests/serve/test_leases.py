# SPDX-License-Identifier: Apache-2.0
"""Leases end by themselves when nobody uses them, and never while a request is answered."""

import time

import pytest

from apps.common.errors import RequestError
from apps.serve.leases import AtCapacityError, LeaseGoneError, Leases


def test_no_more_are_served_than_there_may_be_and_a_place_becomes_free():
    leases = Leases(2, 60, 60)
    first, second = leases.claim(), leases.claim()
    assert first != second
    with pytest.raises(AtCapacityError, match="2 clients are served"):
        leases.claim()
    assert leases.release(first) and not leases.release(first) and not leases.release(None)
    assert leases.claim() not in (first, second)


@pytest.mark.parametrize("token", [None, "", "unknown"])
def test_who_has_no_lease_is_told_to_connect(token):
    with pytest.raises(LeaseGoneError, match="connect again"):
        Leases(2, 60, 60).get(token)


def test_a_silent_client_loses_its_lease_and_one_that_beats_does_not():
    leases = Leases(2, 60, 0.2)
    silent, beating = leases.claim(), leases.claim()
    for _ in range(4):
        time.sleep(0.1)
        leases.get(beating)
    with pytest.raises(LeaseGoneError):
        leases.get(silent)


def test_hearing_of_a_client_does_not_put_off_the_end_of_an_unused_lease():
    leases = Leases(2, 0.25, 60)
    token = leases.claim()
    for _ in range(2):
        time.sleep(0.1)
        assert leases.remaining(leases.get(token)) < 0.25
    time.sleep(0.1)
    with pytest.raises(LeaseGoneError):
        leases.get(token)


def test_a_lease_lasts_while_a_request_is_answered_and_counts_from_its_end():
    leases = Leases(2, 0.2, 0.2)
    token = leases.claim()
    with leases.use(token):
        time.sleep(0.3)
        leases.reap()
    assert leases.remaining(leases.get(token)) > 0.1


def test_what_a_client_worked_on_is_finished_once_when_its_lease_ends():
    finished = []
    leases = Leases(2, 60, 60, finished.append)
    token = leases.claim()
    leases.get(token).annotation = "an object"
    leases.release(token)
    leases.release(token)
    leases.release(leases.claim())  # that has none
    assert finished == ["an object"]


def test_a_client_without_an_image_is_told_to_send_one():
    leases = Leases(2, 60, 60)
    with pytest.raises(RequestError, match="send one first"):
        _ = leases.get(leases.claim()).object


class Image:
    nbytes = 600

    def reset(self):
        pass


def test_images_of_all_clients_together_have_a_bound():
    leases = Leases(3, 60, 60, most_bytes=1000)
    first, second = (leases.get(leases.claim()) for _ in range(2))
    leases.begin(first, Image())
    leases.begin(first, Image())  # in the place of the other
    with pytest.raises(RequestError, match="the images of all clients would take"):
        leases.begin(second, Image())
    assert second.annotation is None
