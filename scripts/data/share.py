# SPDX-License-Identifier: Apache-2.0
"""What each process of a run does of the work: every item once."""

from collections.abc import Sized

import ignite.distributed as idist

from ..errors import InputError


def own_share(items: Sized) -> range:
    """Give this process its block of consecutive items, all of them where there is one process.

    What is gathered from one process after the other is then in the order of the items, as MONAI's DistributedSampler,
    which deals them out in turn, does not have it. It serves a DataLoader as its sampler.

    Raises:
        InputError: when there are fewer items than processes.
    """
    count, processes, rank = len(items), idist.get_world_size(), idist.get_rank()
    if 0 < count < processes:
        raise InputError(f"{count} items cannot be shared by {processes} processes: start {count} at most")
    return range(count * rank // processes, count * (rank + 1) // processes)
