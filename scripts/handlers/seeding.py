# SPDX-License-Identifier: Apache-2.0
"""Repeatable randomness."""

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.data import Dataset
from monai.transforms import Randomizable
from monai.utils import set_determinism


class SeedEachEpoch:
    """Seed all random numbers from the run's seed and the epoch, so that a resumed run continues the same curve.

    Of several processes, each draws its own numbers.

    Args:
        seed: of the run.
        dataset: whose random transforms are seeded too.
    """

    def __init__(self, seed: int, dataset: Dataset) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + 1000 * engine.state.epoch + 1_000_003 * idist.get_rank()
        set_determinism(seed, use_deterministic_algorithms=None)
        if isinstance(self.dataset.transform, Randomizable):
            self.dataset.transform.set_random_state(seed)
