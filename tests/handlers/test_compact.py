# SPDX-License-Identifier: Apache-2.0
"""A state in fewer bytes goes on as the whole one would."""

import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from scripts.handlers import Compact
from scripts.handlers.compact import BLOCK, grow, shrink


def bytes_of(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.tell()


@pytest.mark.parametrize("count", [4096, 5000, 70_001])
def test_first_moments_keep_their_signs_and_zeros(count):
    values = torch.randn(count) * 10 ** torch.linspace(-9, 2, count)
    values[::7] = 0
    back = grow(shrink(values, "exp_avg"), "exp_avg")
    assert back.shape == values.shape
    whole = count // BLOCK * BLOCK
    largest = values[:whole].reshape(-1, BLOCK).abs().amax(1).repeat_interleave(BLOCK)
    assert ((back - values)[:whole].abs() <= largest / 253).all()
    assert (back[values == 0].abs() < 1e-30).all()
    assert (back * values >= 0).all()


@pytest.mark.parametrize("spread", [0, 3, 8])
def test_second_moments_keep_their_size_and_none_becomes_zero(spread):
    values = 10 ** (torch.rand(10_000) * spread - 12)
    back = grow(shrink(values, "exp_avg_sq"), "exp_avg_sq")
    assert ((back / values).log().abs() < 0.01 + 2.31 * spread / 500).all()
    assert (grow(shrink(torch.zeros(5000), "exp_avg_sq"), "exp_avg_sq") > 0).all()


def test_small_tensors_and_integers_stay_as_they_are():
    for tensor in (torch.randn(100), torch.arange(10_000), torch.tensor(3.0)):
        assert grow(shrink(tensor, "exp_avg"), "exp_avg") is tensor


def training(compact, steps=60, stop=30):
    """Train, stop, and go on in a new network from what was saved; return the losses and the size of the file."""
    torch.manual_seed(0)
    make = lambda: nn.Sequential(nn.Linear(32, 256), nn.GELU(), nn.Linear(256, 32))  # noqa: E731
    network, teacher, losses, size = make(), make(), [], 0
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        if step == stop:
            objects = {"model": network, "optimizer": optimizer}
            wrap = Compact if compact else lambda each: each
            saved = {name: wrap(each).state_dict() for name, each in objects.items()}
            size = bytes_of(saved)
            buffer = io.BytesIO()
            torch.save(saved, buffer)
            buffer.seek(0)
            saved = torch.load(buffer, weights_only=True)
            network = make()
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
            for name, each in {"model": network, "optimizer": optimizer}.items():
                wrap(each).load_state_dict(saved[name])
        x = torch.randn(64, 32, generator=generator)
        loss = F.mse_loss(network(x), teacher(x).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, size


def test_a_run_goes_on_with_the_same_loss_from_a_third_of_the_bytes():
    (whole, bytes_whole), (compact, bytes_compact) = training(False), training(True)
    assert bytes_compact < 0.42 * bytes_whole
    assert whole[:30] == compact[:30]
    assert compact[30:] == pytest.approx(whole[30:], rel=0.02)
    assert compact[-1] < 0.7 * compact[0]


def test_a_whole_state_of_before_is_taken():
    network, other = nn.Linear(100, 100), nn.Linear(100, 100)
    Compact(other).load_state_dict(network.state_dict())
    assert torch.equal(other.weight, network.weight)
