# SPDX-License-Identifier: Apache-2.0
"""What a run needs to go on lies in a second place too."""

import logging

import pytest
from ignite.engine import Engine, Events

from scripts.handlers import SecondCopy


def run(path, folder, epochs, monkeypatch, minutes=30.0, each=0.0):
    """Train epochs of so many seconds, each of which writes its number, and list what was copied after each."""
    clock, seen = [0.0], []
    monkeypatch.setattr("scripts.handlers.second_copy.time.monotonic", lambda: clock[0])
    engine = Engine(lambda engine, batch: None)

    @engine.on(Events.EPOCH_COMPLETED)
    def write():
        path.write_text(str(engine.state.epoch))
        clock[0] += each

    SecondCopy(str(path), folder and str(folder), minutes).attach(engine)
    copy = folder / path.name if folder else path.with_name("none")
    look = lambda: seen.append(copy.read_text() if copy.is_file() else None)  # noqa: E731
    engine.add_event_handler(Events.EPOCH_COMPLETED, look)
    engine.run([0], max_epochs=epochs)
    look()
    return seen


@pytest.mark.parametrize(("each", "seen"), [(600, "11144"), (1800, "12344"), (0, "11114")])
def test_it_is_copied_every_half_hour_and_at_the_end(tmp_path, monkeypatch, each, seen):
    found = run(tmp_path / "last.pth", tmp_path / "a" / "b", 4, monkeypatch, each=each)
    assert "".join(found) == seen
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["last.pth"]


def test_a_folder_that_cannot_be_written_to_stops_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "last.pth", tmp_path / "file", 2, monkeypatch)
    assert f"no second copy of {tmp_path / 'last.pth'} in {tmp_path / 'file'}: " in caplog.text


def test_without_a_folder_nothing_is_copied(tmp_path, monkeypatch):
    assert run(tmp_path / "last.pth", None, 2, monkeypatch) == [None] * 3
