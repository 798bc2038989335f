# SPDX-License-Identifier: Apache-2.0
"""What each process does of the work."""

import ignite.distributed as idist
import pytest
import torch
from monai.data import DataLoader
from torch.utils.data import RandomSampler, WeightedRandomSampler

from scripts.data import InputDataset, SeededProxySampler, shard_range
from scripts.errors import InputError


def shares(monkeypatch, count, processes, give):
    monkeypatch.setattr(idist, "get_world_size", lambda: processes)
    return [monkeypatch.setattr(idist, "get_rank", lambda rank=rank: rank) or give() for rank in range(processes)]


@pytest.mark.parametrize(("count", "processes"), [(7, 1), (7, 2), (7, 3), (4, 4), (0, 3)])
def test_every_item_is_one_process_s_in_order(monkeypatch, count, processes):
    found = shares(monkeypatch, count, processes, lambda: shard_range(range(count)))
    assert [i for share in found for i in share] == list(range(count))
    sizes = {len(share) for share in found}
    assert max(sizes) - min(sizes) <= 1


def test_too_few_items_are_refused(monkeypatch):
    with pytest.raises(InputError, match="2 items cannot be shared by 3 processes: start 2 at most"):
        shares(monkeypatch, 2, 3, lambda: shard_range(range(2)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 4])
def test_each_input_is_prepared_once_whichever_worker_of_whichever_process_has_it(monkeypatch, processes, workers):
    def read():
        dataset = InputDataset([{"image": i} for i in range(10)], lambda item: item["image"])
        return list(map(int, DataLoader(dataset, batch_size=1, num_workers=workers)))

    found = shares(monkeypatch, 10, processes, read)
    assert sorted(i for share in found for i in share) == list(range(10))
    assert max(map(len, found)) - min(map(len, found)) <= workers + 1


@pytest.mark.parametrize("make", [RandomSampler, lambda items: WeightedRandomSampler([1.0] * len(items), len(items))])
def test_the_order_of_several_processes_is_of_the_seed_and_the_epoch(monkeypatch, make):
    """It was of the epoch alone, and torch's own numbers too."""
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    orders = {}
    for rank in (0, 1):
        monkeypatch.setattr(idist, "get_rank", lambda rank=rank: rank)
        for seed, epoch in ((0, 1), (0, 2), (1, 1)):
            sampler = SeededProxySampler(make(range(10)), seed)
            sampler.set_epoch(epoch)
            torch.manual_seed(100 * seed + rank)
            state = torch.get_rng_state()
            orders[seed, epoch, rank] = list(sampler)
            assert torch.equal(torch.get_rng_state(), state)
            assert list(sampler) == orders[seed, epoch, rank]
    assert len({str(order) for order in orders.values()}) == 6
    if make is RandomSampler:
        for seed, epoch in ((0, 1), (0, 2), (1, 1)):
            assert sorted(orders[seed, epoch, 0] + orders[seed, epoch, 1]) == list(range(10))
