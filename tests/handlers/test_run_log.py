# SPDX-License-Identifier: Apache-2.0
"""What a training says: a table on the console, all else in a file, and warnings in both."""

import io
import logging
from types import SimpleNamespace

import pytest
from ignite.engine import Engine, Events

from scripts.handlers import EpochTable, RunLog, epoch_table


@pytest.fixture
def console():
    """A console as logging.conf sets it up, on the root logger."""
    root, stream = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(stream), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def make_engine(epochs=2):
    engine = Engine(lambda engine, batch: None)
    engine.logger = logging.getLogger("ignite.engine.engine.SupervisedTrainer")
    engine.state.metrics["train_loss"] = 0.5
    return engine, lambda: engine.run([0], max_epochs=epochs)


def test_lines_of_engines_and_reports_are_in_the_file_alone_and_warnings_in_both(tmp_path, console):
    engine, run = make_engine()
    RunLog(str(tmp_path / "eval")).attach(engine)

    @engine.on(Events.EPOCH_COMPLETED)
    def speak(engine):
        logging.getLogger("scripts.handlers.report").info("wrote metrics.json")
        logging.getLogger("scripts.handlers.curves").info("drew curves")
        logging.getLogger("ignite.engine").warning("Epoch[1] is slow")

    run()
    assert console.getvalue().splitlines() == ["drew curves", "Epoch[1] is slow"] * 2
    said = (tmp_path / "eval" / "log.txt").read_text()
    for line in ("Epoch[1] Complete", "wrote metrics.json", "drew curves", "WARNING - ignite.engine: Epoch[1] is slow"):
        assert line in said, line
    run()  # goes on at the end of the file, each line once
    assert (tmp_path / "eval" / "log.txt").read_text().count("drew curves") == 4


def test_an_error_passes_and_closes_the_file(tmp_path, console):
    engine, run = make_engine()
    log = RunLog(str(tmp_path))
    log.attach(engine)

    @engine.on(Events.ITERATION_COMPLETED)
    def fail(engine):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run()
    assert log.file is None and (tmp_path / "log.txt").is_file()


@pytest.mark.parametrize("done", [0, 2])
def test_each_epoch_is_a_line_with_its_scores_and_the_time_left(capsys, monkeypatch, done):
    seconds = iter([100.0, 160.0, 200.0, 250.0])  # the start, then the end of each epoch
    monkeypatch.setattr(epoch_table, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    evaluator, (engine, _) = Engine(lambda engine, batch: None), make_engine()
    scores = iter([0.25, 0.5, 0.75])
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda e: e.state.metrics.update({"dice/click_1": next(scores), "dice/box": float("nan")}),
    )
    if done == 0:
        engine.add_event_handler(Events.STARTED, lambda _: evaluator.run([0]))
    engine.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda _: evaluator.run([0]))
    EpochTable(evaluator, "train_loss", {"dice/click_1": "1 click", "dice/box": "box"}).attach(engine)
    engine.state.epoch = engine.state.iteration = done
    engine.state.epoch_length = 1
    engine.state.max_epochs = done + 3
    engine.run([0], max_epochs=done + 3)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["epoch", "loss", "1", "click", "box", "time", "left"]
    expected = [["0", "0.2500"]] if done == 0 else []
    scored = "0.5000" if done == 0 else "0.2500"
    expected += [[str(done + 1), "0.5000", "0:02:00"], [str(done + 2), "0.5000", scored, "0:00:50"]]
    assert lines[1:] == [*expected, [str(done + 3), "0.5000"]]
