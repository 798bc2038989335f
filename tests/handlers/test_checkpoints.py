# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: the best stays the best, a whole file is always there, and a resumed run goes on as if never stopped."""

import multiprocessing
import os
import signal

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.optimizers import WarmupCosineSchedule

from scripts.errors import InputError
from scripts.handlers import CheckpointFiles, Compact, EarlyStop, RunState
from scripts.handlers.resuming import ScalerState, load_state, read_state, upgrade
from scripts.networks import parameter_groups


class Counter:
    """Something with a state: a number."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def evaluate(checkpoint, counter, scores):
    """Run an evaluator's epoch for each score, the counter saying which it is; give what the file then holds."""
    engine = Engine(lambda engine, batch: None)
    checkpoint.attach(engine)
    saver = checkpoint.checkpoint.save_handler
    path, held = saver.dirname / saver.files[0], []

    @engine.on(Events.EPOCH_STARTED)
    def give_score(engine):
        engine.state.metrics["dice"] = scores[counter.value]
        counter.value += 1

    for _ in range(counter.value, len(scores)):
        engine.run([0], max_epochs=1)
        held.append(torch.load(path, weights_only=True)["value"])
    return held


def test_the_best_is_kept_until_a_better_one_comes(tmp_path):
    counter = Counter()
    best = CheckpointFiles(str(tmp_path), {"model.pt": {"model": counter}}, metric="dice")
    assert evaluate(best, counter, [0.5, 0.4, 0.5, 0.7, 0.6]) == [1, 1, 1, 4, 4]
    assert os.listdir(tmp_path) == ["model.pt"]


def test_the_latest_is_replaced_every_epoch(tmp_path):
    counter, held = Counter(), []
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: counter.load_state_dict({"value": engine.state.epoch})
    )
    CheckpointFiles(str(tmp_path), {"last.pth": {"model": counter}}).attach(engine)

    @engine.on(Events.EPOCH_COMPLETED)
    def look(engine):
        held.append((os.listdir(tmp_path), torch.load(tmp_path / "last.pth", weights_only=True)))

    engine.run([0], max_epochs=3)
    assert held == [(["last.pth"], {"value": epoch}) for epoch in (1, 2, 3)]


def test_what_is_known_of_the_best_survives_a_resume(tmp_path):
    scores, counter = [0.5, 0.8, 0.6, 0.7, 0.9], Counter()
    best = CheckpointFiles(str(tmp_path), {"model.pt": {"model": counter}}, metric="dice")
    assert evaluate(best, counter, scores[:2]) == [1, 2]

    torch.save(best.state_dict(), tmp_path / "last.pth")
    resumed, counter = CheckpointFiles(str(tmp_path), {"model.pt": {"model": counter}}, metric="dice"), counter
    resumed.load_state_dict(torch.load(tmp_path / "last.pth", weights_only=True))
    assert evaluate(resumed, counter, scores) == [2, 2, 5]


def test_files_of_one_judge_are_of_the_same_epoch_also_after_a_resume(tmp_path):
    """adapter.pth had a judge of its own that was not resumed, and began anew."""
    counter, scores = Counter(), [0.5, 0.8, 0.6, 0.7]
    files = {"model.pt": {"model": counter}, "adapter.pth": {"adapter": counter}}
    best = CheckpointFiles(str(tmp_path), files, metric="dice")
    evaluate(best, counter, scores[:2])
    resumed = CheckpointFiles(str(tmp_path), files, metric="dice")
    resumed.load_state_dict(best.state_dict())
    evaluate(resumed, counter, scores)
    assert [torch.load(tmp_path / name, weights_only=True) for name in files] == [{"value": 2}] * 2


def test_one_object_is_saved_bare_and_several_by_name(tmp_path):
    for name, save_dict in (
        ("one.pt", {"model": Counter(3)}),
        ("both.pt", {"model": Counter(3), "trainer": Counter(4)}),
    ):
        engine = Engine(lambda engine, batch: None)
        CheckpointFiles(str(tmp_path), {name: save_dict}).attach(engine)
        engine.run([0])
    assert torch.load(tmp_path / "one.pt", weights_only=True) == {"value": 3}
    assert torch.load(tmp_path / "both.pt", weights_only=True) == {"model": {"value": 3}, "trainer": {"value": 4}}


def test_the_final_model_is_written_once_at_the_end_even_of_a_run_that_stops_early(tmp_path):
    counter, engine = Counter(), Engine(lambda engine, batch: None)
    CheckpointFiles(str(tmp_path), {"final.pt": {"model": counter}}, event="COMPLETED").attach(engine)

    @engine.on(Events.EPOCH_COMPLETED)
    def count(engine):
        assert not (tmp_path / "final.pt").exists()
        counter.value += 1
        if counter.value == 2:
            engine.terminate()

    engine.run([0], max_epochs=5)
    assert torch.load(tmp_path / "final.pt", weights_only=True) == {"value": 2}


def test_a_missing_folder_is_made(tmp_path):
    engine = Engine(lambda engine, batch: None)
    CheckpointFiles(str(tmp_path / "a" / "b"), {"last.pth": {"model": Counter(1)}}).attach(engine)
    engine.run([0])
    assert torch.load(tmp_path / "a" / "b" / "last.pth", weights_only=True) == {"value": 1}


def dying_save(path, die):
    """A torch.save that dies halfway, after it saw that the old file is still whole."""

    def save(checkpoint, file):
        file.write(b"half a checkpoint")
        file.flush()
        assert torch.load(path, weights_only=True) == {"value": 1}
        die()

    return save


def fail():
    raise OSError("no space left on device")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def written(tmp_path):
    """An engine after one epoch, the file that it wrote, and what its second epoch writes."""
    counter, engine = Counter(1), Engine(lambda engine, batch: None)
    CheckpointFiles(str(tmp_path), {"last.pth": {"model": counter}}).attach(engine)
    engine.run([0])
    counter.value = 2
    engine.state.max_epochs = 2
    return engine, tmp_path / "last.pth", {"value": 2}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(written, monkeypatch):
    engine, path, _ = written
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dying_save(path, fail))
        with pytest.raises(OSError, match="no space left"):
            engine.run([0])
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert os.listdir(path.parent) == ["last.pth"]


def test_a_process_killed_while_it_writes_leaves_the_old_file(written, monkeypatch):
    engine, path, second = written
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dying_save(path, kill))
        process = multiprocessing.get_context("fork").Process(target=engine.run, args=([0],))
        process.start()
        process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert torch.load(path, weights_only=True) == {"value": 1}
    engine.run([0])
    assert torch.load(path, weights_only=True) == second


class Scaling(Engine):
    """A trainer that makes its scaler when it starts, as MONAI's does."""

    def __init__(self, scale):
        super().__init__(lambda engine, batch: None)
        self.scale, self.scaler = scale, None

    def run(self):
        self.scaler = None if self.scale is None else scaler_of(self.scale)
        return super().run([0])


def test_a_scaler_is_saved_and_goes_on_where_there_is_one():
    plain, scaling, resumed = Scaling(None), Scaling(8.0), Scaling(2.0)
    for trainer in (plain, scaling):
        assert ScalerState(trainer).state_dict() == {}
        trainer.run()
    assert ScalerState(plain).state_dict() == {}
    saved = ScalerState(scaling).state_dict()
    ScalerState(plain).load_state_dict(saved)
    plain.run()
    ScalerState(resumed).load_state_dict({})  # of a run that scaled nothing
    resumed.run()
    assert resumed.scaler.get_scale() == 2.0
    ScalerState(resumed).load_state_dict(saved)  # before it starts
    resumed.run()
    assert resumed.scaler.get_scale() == 8.0


def scaler_of(scale):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.zeros(()))  # makes it
    return scaler


# --- resuming


def steps(network, optimizer, scheduler, count):
    for _ in range(count):
        optimizer.zero_grad()
        network(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("wrap", [lambda each: each, Compact], ids=["whole", "compact"])
def test_an_optimizer_of_one_group_goes_on_in_two(wrap):
    """Version 0.2 had one group of all parameters; nothing may change but the decay."""
    ends = []
    for groups in (lambda n: n.parameters(), lambda n: parameter_groups(n, 0.0)):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))
        objects = {"model": wrap(network)}
        old = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(old, lambda step: 1 / (1 + step))
        steps(network, old, schedule, 3)
        checkpoint = {
            "model": network.state_dict(),
            "optimizer": old.state_dict(),
            "lr_scheduler": schedule.state_dict(),
        }
        new = torch.optim.AdamW(groups(network), lr=0.1, weight_decay=0.0)
        again = torch.optim.lr_scheduler.LambdaLR(new, lambda step: 1 / (1 + step))
        objects |= {"optimizer": wrap(new), "lr_scheduler": again}
        checkpoint = upgrade(checkpoint, objects)
        assert checkpoint.pop("scaler") == {}
        for name, each in objects.items():
            each.load_state_dict(checkpoint[name])
        steps(network, new, again, 3)
        ends.append(torch.cat([p.flatten() for p in network.parameters()]))
    torch.testing.assert_close(*ends, rtol=0, atol=0)


class Run:
    """A small training run with everything that configs/train.yaml saves to go on."""

    def __init__(self, folder, max_epochs, features=3, images=6, resume_path=None):
        generator = torch.Generator().manual_seed(0)
        data = [
            {"image": torch.rand(features, generator=generator), "label": torch.rand(1, generator=generator)}
            for _ in range(images)
        ]
        torch.manual_seed(0)
        self.network = torch.nn.Linear(features, 1)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.lr_scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, 0.5)
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=max_epochs,
            train_data_loader=DataLoader(Dataset(data), batch_size=2),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=torch.nn.MSELoss(),
            decollate=False,
        )
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self.lr_scheduler.step())
        best = CheckpointFiles(str(folder), {"model.pt": {"model": self.network}}, metric="dice")
        self.state = {
            "model": self.network,
            "optimizer": self.optimizer,
            "lr_scheduler": self.lr_scheduler,
            "best": best,
            "early_stop": EarlyStop(Engine(lambda engine, batch: None), "dice", 3),
        }
        self.epochs = []
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: self.epochs.append(engine.state.epoch))
        RunState(str(folder), self.state, resume_path and str(resume_path)).attach(self.trainer)

    def run(self):
        self.trainer.run()
        return self


@pytest.fixture
def saved(tmp_path):
    """The last.pth of a run of two epochs."""
    Run(tmp_path, max_epochs=2).run()
    return tmp_path / "last.pth"


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, saved):
    (tmp_path / "whole").mkdir()
    whole = Run(tmp_path / "whole", max_epochs=5).run()
    resumed = Run(tmp_path, max_epochs=5, resume_path=saved).run()
    assert whole.epochs == [1, 2, 3, 4, 5]
    assert resumed.epochs == [3, 4, 5]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    assert resumed.lr_scheduler.get_last_lr() == whole.lr_scheduler.get_last_lr()


def test_a_missing_file_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(InputError, match=r"^cannot resume: \S*/last.pth does not exist$"):
        RunState(str(tmp_path), {}, str(tmp_path / "last.pth"))


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_text(path):
    path.write_text("not a checkpoint")


def keep_weights_only(path):
    torch.save(torch.load(path, weights_only=True)["model"], path)


def save_a_tensor(path):
    torch.save(torch.zeros(3), path)


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (cut_in_half, {}, r"cannot resume: \S+ is not a readable checkpoint"),
        (write_text, {}, r"cannot resume: \S+ is not a readable checkpoint"),
        (keep_weights_only, {}, r"cannot resume: \S+ holds no model, optimizer, .*; give the last.pth of a run"),
        (save_a_tensor, {}, r"cannot resume: \S+ holds no model, optimizer, .*; give the last.pth of a run"),
        (None, {"features": 4}, r"cannot resume: \S+ is of a run with another network or data"),
        (None, {"images": 8}, r"cannot resume: \S+ is of a run with another network or data: 3 batches .* 4"),
        (None, {"max_epochs": 2}, r"\S+ has 2 epochs already: give a larger max_epochs than 2"),
        (None, {"max_epochs": 1}, r"\S+ has 2 epochs already: give a larger max_epochs than 1"),
    ],
    ids=["cut", "text", "weights", "tensor", "network", "data", "done", "more_than_done"],
)
def test_what_cannot_be_resumed_is_refused_in_one_sentence(tmp_path, saved, spoil, settings, message):
    if spoil:
        spoil(saved)
    with pytest.raises(InputError, match=f"^{message}") as refused:
        Run(tmp_path, **{"max_epochs": 4, **settings}, resume_path=saved).run()
    assert len(str(refused.value).splitlines()) == 1


def test_a_finished_run_with_more_epochs_gets_a_schedule_of_all_of_them(tmp_path):
    def make(max_epochs):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = WarmupCosineSchedule(optimizer, warmup_steps=1, t_total=max_epochs * 5)
        trainer = Engine(lambda engine, batch: (optimizer.step(), scheduler.step()))
        trainer.state.max_epochs, trainer.state.epoch_length = max_epochs, 5
        return trainer, {"optimizer": optimizer, "lr_scheduler": scheduler, "trainer": trainer}

    trainer, state = make(2)
    trainer.run(range(5), max_epochs=2)
    path = tmp_path / "last.pth"
    torch.save({name: value.state_dict() for name, value in state.items()}, path)
    assert state["optimizer"].param_groups[0]["lr"] == pytest.approx(0)

    again, state = make(4)
    load_state(str(path), read_state(str(path), state), state, again)
    whole, expected = make(4)
    whole.run(range(5), max_epochs=2)
    rates = lambda state: state["optimizer"].param_groups[0]["lr"]  # noqa: E731
    assert rates(state) == pytest.approx(rates(expected)) and rates(state) > 0.3
    again.run(range(5), max_epochs=4)
    assert rates(state) == pytest.approx(0, abs=1e-9)
