# SPDX-License-Identifier: Apache-2.0
"""Gradient clipping inside MONAI's trainer, and epochs that repeat."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.transforms import RandScaleIntensityd

from scripts.handlers import GradientClipping, SeedEachEpoch


class Product(torch.nn.Module):
    """One weight times the image, so that the loss below has the label as its gradient."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.weight * image


def train(gradients, max_norm, accumulation_steps=1, max_epochs=1, scale=lambda epoch: 1.0):
    """Train one weight by steps of plain SGD; give it, and the reported norm of each epoch."""
    network = Product()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(
            Dataset([{"image": torch.ones(1), "label": torch.tensor([value])} for value in gradients])
        ),
        network=network,
        optimizer=optimizer,
        loss_function=lambda pred, label: (pred * label).sum() * scale(trainer.state.epoch),
        train_handlers=[GradientClipping(optimizer, max_norm)],
        accumulation_steps=accumulation_steps,
        decollate=False,
    )
    norms = []
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: norms.append(engine.state.metrics["gradient_norm"])
    )
    trainer.run()
    return network.weight.item(), norms


@pytest.mark.parametrize(
    ("accumulation_steps", "weight", "norm"),
    [
        (1, -(1 + 1 + 0.2 + 0.4), 5),
        (2, -(1 + 0.3), 4),  # the means 4 and 0.3: clipped once for each step, not once for each batch
        (3, -(1 + 0.4 / 3), 8.2 / 3),  # the last batch steps by itself
    ],
)
def test_each_step_is_clipped_once(accumulation_steps, weight, norm):
    found, norms = train([3.0, 5.0, 0.2, 0.4], max_norm=1.0, accumulation_steps=accumulation_steps)
    assert found == pytest.approx(weight, abs=1e-5)
    assert norms == pytest.approx([norm])


def test_a_larger_limit_changes_nothing():
    found, norms = train([3.0, 5.0], max_norm=10.0)
    assert found == pytest.approx(-8)
    assert norms == pytest.approx([5])


def test_the_norm_is_the_largest_of_each_epoch_before_clipping():
    _, norms = train([3.0, -5.0, 0.2], max_norm=1.0, max_epochs=3, scale=lambda epoch: 10.0 / epoch)
    assert norms == pytest.approx([50, 25, 50 / 3])


def test_the_norm_is_taken_over_all_parameters():
    weights = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:]}], lr=1.0)
    clipping = GradientClipping(optimizer, max_norm=1.0)
    weights[0].grad, weights[1].grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0])
    optimizer.step()
    assert torch.cat([w.detach() for w in weights]).tolist() == pytest.approx([-2 / 7, -3 / 7, -6 / 7], abs=1e-5)
    assert clipping.largest.item() == pytest.approx(7)


# --- the same epoch is the same


def draw_epochs(seed, epochs, start=0, num_workers=0):
    """Give what each epoch draws: the order of images, their random transforms, and numbers of the network's."""
    dataset = Dataset(
        [{"index": i, "image": torch.ones(1, 2)} for i in range(6)], RandScaleIntensityd("image", 0.5, prob=0.5)
    )
    drawn = {}

    def step(engine, batch):
        epoch = drawn.setdefault(engine.state.epoch, {"order": [], "transforms": [], "network": []})
        epoch["order"] += batch["index"].tolist()
        epoch["transforms"] += batch["image"][:, 0, 0].tolist()
        epoch["network"] += [torch.rand(()).item(), np.random.rand()]

    engine = Engine(step)
    SeedEachEpoch(seed, dataset).attach(engine)
    loader = DataLoader(dataset, batch_size=2, shuffle=True, num_workers=num_workers)
    engine.load_state_dict({"epoch": start, "max_epochs": epochs, "epoch_length": len(loader)})
    engine.run(loader)
    return drawn


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_draws_the_same_whatever_came_before(num_workers):
    whole = draw_epochs(seed=3, epochs=4, num_workers=num_workers)
    torch.rand(5), np.random.rand(5)
    resumed = draw_epochs(seed=3, epochs=4, start=2, num_workers=num_workers)
    assert list(resumed) == [3, 4]
    assert resumed == {epoch: whole[epoch] for epoch in (3, 4)}


@pytest.mark.parametrize("what", ["order", "transforms", "network"])
def test_epochs_and_seeds_differ(what):
    drawn = [str(epoch[what]) for seed in (0, 1) for epoch in draw_epochs(seed, epochs=3).values()]
    assert len(set(drawn)) == 6


def test_a_dataset_without_random_transforms_is_fine():
    engine = Engine(lambda engine, batch: torch.rand(()).item())
    SeedEachEpoch(0, Dataset([1, 2], lambda item: item)).attach(engine)
    assert engine.run([0]).output == engine.run([0]).output
