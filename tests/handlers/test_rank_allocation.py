# SPDX-License-Identifier: Apache-2.0
"""AdaLoRA's ranks: as peft allocates them, the same after a stop, and no word of it without AdaLoRA."""

import json

import pytest
import torch
from monai.engines import SupervisedTrainer

from scripts.handlers import RankAllocation
from tests.networks.peft_recipe import (
    FINAL,
    FIXTURE,
    INTERVAL,
    LAYERS,
    LEARNING_RATE,
    STEPS,
    TARGET_RANK,
    WARMUP,
    batch,
)
from tests.networks.test_low_rank import small


def make_run(network):
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=LEARNING_RATE)
    ranks = RankAllocation(network, optimizer, STEPS, WARMUP / STEPS, FINAL / STEPS, INTERVAL)
    losses, values = [], []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=STEPS,
        train_data_loader=[0],
        prepare_batch=lambda *_, **__: batch(trainer.state.epoch),
        network=network,
        optimizer=optimizer,
        loss_function=lambda found, wanted: (found - wanted).square().mean(),
        train_handlers=[ranks],
        optim_set_to_none=True,
        decollate=False,
    )

    @trainer.on("ITERATION_COMPLETED")
    def note(engine):
        losses.append(engine.state.output["loss"].item())
        for_layers = {name: network.get_submodule(f"mlp.{name}") for name in LAYERS}
        values.append(
            {name: getattr(each, "adalora_e", each.weight).detach().clone() for name, each in for_layers.items()}
        )

    return trainer, ranks, losses, values


def test_losses_and_singular_values_of_a_run_are_those_of_peft():
    trainer, _, losses, values = make_run(small("adalora", target_rank=TARGET_RANK))
    trainer.run()
    expected = json.loads(FIXTURE.read_text())["adalora"]
    assert losses == pytest.approx([step["loss"] for step in expected], rel=1e-4)
    for found, step in zip(values, expected):
        for name in LAYERS:
            torch.testing.assert_close(found[name], torch.tensor(step["values"][name]), atol=1e-5, rtol=1e-4)
    assert sum(int((values[-1][name] != 0).sum()) for name in LAYERS) == 2 * TARGET_RANK


@pytest.mark.parametrize("stop", [3, 9, 20])
def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(stop):
    whole, _, expected, _ = make_run(small("adalora", target_rank=TARGET_RANK))
    whole.run()
    network = small("adalora", target_rank=TARGET_RANK)
    trainer, ranks, losses, _ = make_run(network)
    trainer.state.max_epochs = stop
    trainer.run()
    again = small("adalora", target_rank=TARGET_RANK)
    again.load_state_dict(network.state_dict())
    resumed, resumed_ranks, more, _ = make_run(again)
    resumed_ranks.load_state_dict(ranks.state_dict())
    resumed.load_state_dict({"epoch": stop, "max_epochs": STEPS, "epoch_length": 1})
    resumed.run()
    assert losses + more == expected


def test_the_budget_falls_from_all_to_the_target():
    ranks = RankAllocation(small("adalora", target_rank=2), torch.optim.SGD([torch.zeros(1)], 1.0), 60)
    falls = [ranks.budget(step) for step in range(1, 61)]
    assert falls[:10] == [8] * 10 and falls[29:] == [4] * 31
    assert falls == sorted(falls, reverse=True)
    assert falls[19] == int(4 + 4 * 0.5**3)


def test_a_network_without_it_is_left_alone():
    network = small("lora")
    trainer, ranks, _, _ = make_run(network)
    assert not trainer.has_event_handler(ranks.add_orthogonality)
    assert ranks.state_dict() == {"steps": 0, "smoothed": {}, "kept": None}
