# SPDX-License-Identifier: Apache-2.0
"""Memory and time as metrics of the engine, so that every logger listed after these handlers shows them."""

import psutil
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents

GIB = 2**30


class PeakMemory:
    """Report the peak of each epoch in GiB: of the GPU (allocated and reserved), and the process's resident memory.

    Resident memory is sampled after each iteration.

    Args:
        device: the device that trains.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = torch.device(device)
        self.process = psutil.Process()
        self.resident = 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.sample)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def start(self, engine: Engine) -> None:
        self.resident = 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def sample(self, engine: Engine) -> None:
        self.resident = max(self.resident, self.process.memory_info().rss)

    def report(self, engine: Engine) -> None:
        engine.state.metrics["memory_resident_gib"] = self.resident / GIB
        if self.device.type == "cuda":
            engine.state.metrics["memory_cuda_allocated_gib"] = torch.cuda.max_memory_allocated(self.device) / GIB
            engine.state.metrics["memory_cuda_reserved_gib"] = torch.cuda.max_memory_reserved(self.device) / GIB


class CudaTimer:
    """Report the mean milliseconds of the forward pass, the loss and the backward pass of each epoch on a CUDA device.

    Events are recorded on the stream and read once at the end of the epoch, so that timing does not slow training.
    """

    PHASES = ("forward", "loss", "backward")

    def __init__(self) -> None:
        self.records: list[list[torch.cuda.Event]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self.records.clear())
        engine.add_event_handler(Events.ITERATION_STARTED, lambda _: self.records.append([]))
        for event in (
            Events.ITERATION_STARTED,
            IterationEvents.FORWARD_COMPLETED,
            IterationEvents.LOSS_COMPLETED,
            IterationEvents.BACKWARD_COMPLETED,
        ):
            engine.add_event_handler(event, self.record)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def record(self, engine: Engine) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.records[-1].append(event)

    def report(self, engine: Engine) -> None:
        torch.cuda.synchronize()
        whole = [r for r in self.records if len(r) == len(self.PHASES) + 1]
        for i, phase in enumerate(self.PHASES):
            times = [r[i].elapsed_time(r[i + 1]) for r in whole]
            engine.state.metrics[f"cuda_{phase}_ms"] = sum(times) / max(len(times), 1)
