# SPDX-License-Identifier: Apache-2.0
"""Memory and time become metrics of each epoch."""

from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from scripts.handlers import CudaTimer, PeakMemory

GIB = 2**30
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def metrics_of_epochs(engine, data, epochs):
    """Run, and give the metrics at the end of each epoch."""
    seen = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    engine.run(data, max_epochs=epochs)
    return seen


def test_resident_memory_is_the_peak_of_each_epoch(monkeypatch):
    handler = PeakMemory(torch.device("cpu"))
    sizes = iter([1, 4, 2, 3, 1, 2])
    monkeypatch.setattr(handler, "process", SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=next(sizes) * GIB)))
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    assert metrics_of_epochs(engine, [0, 1, 2], 2) == [{"memory_resident_gib": 4.0}, {"memory_resident_gib": 3.0}]


def test_resident_memory_is_that_of_this_process():
    engine = Engine(lambda engine, batch: None)
    PeakMemory("cpu").attach(engine)
    (metrics,) = metrics_of_epochs(engine, [0], 1)
    assert 0.05 < metrics["memory_resident_gib"] < 50  # torch alone takes a tenth of a GiB


@needs_cuda
def test_gpu_memory_is_the_peak_of_each_epoch():
    device = torch.device("cuda:0")
    engine = Engine(lambda engine, batch: torch.empty(batch, device=device).sum() and None)
    PeakMemory(device).attach(engine)
    engine.add_event_handler(Events.EPOCH_STARTED(once=2), lambda engine: engine.state.dataloader.__setitem__(0, 1))
    large, small = metrics_of_epochs(engine, [64 * 2**20], 2)
    assert 0.25 <= large["memory_cuda_allocated_gib"] <= large["memory_cuda_reserved_gib"]
    assert small["memory_cuda_allocated_gib"] < large["memory_cuda_allocated_gib"]


@needs_cuda
def test_phases_of_a_step_are_timed():
    device = torch.device("cuda:0")
    network = torch.nn.Linear(512, 512).to(device)
    data = [{"image": torch.rand(512), "label": torch.rand(512)} for _ in range(4)]
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=2,
        train_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=torch.nn.MSELoss(),
        train_handlers=[CudaTimer()],
        decollate=False,
    )
    trainer.run()
    times = {name: value for name, value in trainer.state.metrics.items() if name.startswith("cuda_")}
    assert set(times) == {"cuda_forward_ms", "cuda_loss_ms", "cuda_backward_ms"}
    assert all(0 < value < 10_000 for value in times.values())
