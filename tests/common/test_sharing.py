# SPDX-License-Identifier: Apache-2.0
"""What readers share: the network's turns, and what is kept in memory."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.common.kept import Kept
from apps.common.turns import TakingTurns, Turns


class Slow:
    """A network whose parts note who uses them, and fail where two do at once."""

    image_size = 256

    def __init__(self):
        self.users, self.inside = [], 0

    def encode_image(self, user):
        self.inside += 1
        assert self.inside == 1
        time.sleep(0.002)
        self.users.append(user)
        self.inside -= 1
        if user == "broken":
            raise ValueError


def test_a_long_request_lets_a_short_one_in_between_its_parts():
    network, started = TakingTurns(slow := Slow(), Turns()), threading.Event()

    def long():
        for n in range(100):
            network.encode_image("long")
            if n == 5:
                started.set()

    reader = threading.Thread(target=long)
    reader.start()
    started.wait()
    network.encode_image("short")
    at = slow.users.index("short")
    reader.join()
    assert at < 20 and len(slow.users) == 101 and network.image_size == 256


def test_turns_are_taken_by_one_at_a_time_also_after_one_that_failed():
    network = TakingTurns(slow := Slow(), Turns())
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(network.encode_image, user) for user in ("broken", *range(20))]
    assert sum(answer.exception() is not None for answer in answers) == 1 and len(slow.users) == 21


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    kept, made = Kept(10, len), []

    def get(key, size=4):
        return kept.get(key, lambda: made.append(key) or "x" * size)

    for key in "abab":
        get(key)
    get("c")
    get("b")
    get("a")
    assert "".join(made) == "abca"
    assert len(get("large", 99)) == 99 and get("large") and made[-1] == "large"


def test_the_same_is_made_once_and_another_does_not_wait_for_it():
    kept, made, go_on = Kept(100, len), [], threading.Event()

    def slow():
        go_on.wait(10)
        made.append(1)
        return "slow"

    with ThreadPoolExecutor(8) as pool:
        same = [pool.submit(kept.get, "a", slow) for _ in range(4)]
        assert kept.get("b", lambda: "fast") == "fast"
        go_on.set()
        assert {each.result() for each in same} == {"slow"}
    assert made == [1]


def test_what_could_not_be_made_is_made_the_next_time():
    kept = Kept(100, len)

    def fail():
        raise OSError

    with pytest.raises(OSError):
        kept.get("a", fail)
    assert kept.get("a", lambda: "made") == "made"
