# SPDX-License-Identifier: Apache-2.0
"""What each process of a run does of the work: every item once."""

from collections.abc import Iterator, Sized

import ignite.distributed as idist
import torch
from ignite.distributed.auto import DistributedProxySampler
from torch.utils.data import Sampler

from ..errors import InputError


def shard_range(items: Sized) -> range:
    """Return the block of consecutive items of this process, all of them where there is one process.

    What is gathered from one process after the other is then in the order of the items, as MONAI's DistributedSampler,
    which deals them out in turn, does not have it. It serves a DataLoader as its sampler.

    Raises:
        InputError: when there are fewer items than processes.
    """
    count, processes, rank = len(items), idist.get_world_size(), idist.get_rank()
    if 0 < count < processes:
        raise InputError(f"{count} items cannot be shared by {processes} processes: start {count} at most")
    return range(count * rank // processes, count * (rank + 1) // processes)


class SeededProxySampler(DistributedProxySampler):
    """Deal out what a sampler draws, in an order of the run's seed and the epoch.

    Ignite's class draws by the epoch alone, and sets torch's own random numbers by it: with any seed, images came in
    one order, with the same rounds and clicks.

    Args:
        sampler: of all items.
        seed: of the run.
    """

    def __init__(self, sampler: Sampler, seed: int) -> None:
        super().__init__(sampler, num_replicas=idist.get_world_size(), rank=idist.get_rank())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the order, as MONAI's trainer does before each."""
        super().set_epoch(1_000_003 * self.seed + epoch)

    def __iter__(self) -> Iterator:
        with torch.random.fork_rng(devices=[]):
            return iter(list(super().__iter__()))
