# SPDX-License-Identifier: Apache-2.0
"""Training with a simulated user: what is encoded, asked, corrected and trained, and what a trainer makes of it."""

import copy
import os
from collections import Counter

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from monai.engines import PrepareBatchExtraInput, SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.losses import DiceLoss
from torch import nn

from scripts.engines import TrainingSimulator
from scripts.losses import PromptedMaskLoss
from scripts.networks import train_only
from scripts.prompts.class_layout import ClassLayout
from scripts.prompts.form import BACKGROUND, PADDING
from tests.engines.spy import SURE, SpyNetwork, picture
from tests.networks.recipe import recipe_network

# an object of three greys, and one of its greys again elsewhere
IMAGE = picture((0.4, 8, 8, 20, 24), (0.7, 20, 8, 30, 24), (1.0, 8, 24, 30, 30), (0.4, 40, 40, 60, 60))
OBJECT = picture((1.0, 8, 8, 30, 30))[:, :1]
POINTS, LABELS = torch.tensor([[[[12.0, 12.0]]]]), torch.tensor([[[1]]])
ITEM = IMAGE, POINTS, LABELS, OBJECT
LAYOUT = ClassLayout({"a": [1, 2, 3], "b": [2, 3], "c": [3]})


def step(module, item=ITEM, seed=0):
    torch.manual_seed(seed)
    return module(*item)


def seed_of(rounds, module):
    """Find a seed with which a step has a number of rounds."""
    for seed in range(100):
        torch.manual_seed(seed)
        if int(torch.randint(1, module.rounds + 1, ())) == rounds:
            return seed
    raise AssertionError(f"no seed draws {rounds} rounds")


@pytest.mark.parametrize(("rounds", "gradient_rounds"), [(1, 0), (3, 4), (0, 0), (2, -1)])
def test_rounds_that_cannot_be_are_refused(rounds, gradient_rounds):
    with pytest.raises(ValueError, match="1 <= gradient_rounds <= rounds"):
        TrainingSimulator(SpyNetwork(), rounds, gradient_rounds)


@pytest.mark.parametrize("most", [1, 3, 5])
def test_every_number_of_rounds_up_to_the_most_occurs_on_one_encoding(most):
    network, counts = SpyNetwork(), Counter()
    module = TrainingSimulator(network, most, 1)
    for seed in range(40):
        network.encoded.clear()
        network.asked.clear()
        step(module, seed=seed)
        counts[len(network.asked)] += 1
        assert network.encoded == [(1, 3, 64, 64)]
    assert sorted(counts) == list(range(1, most + 1))
    assert min(counts.values()) >= 40 / most / 3


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("gradient_rounds", [1, 2, 5])
def test_the_last_rounds_are_trained_and_the_others_keep_no_graph(rounds, gradient_rounds):
    network = SpyNetwork()
    module = TrainingSimulator(network, 5, gradient_rounds)
    predictions = step(module, seed=seed_of(rounds, module))
    trained = min(rounds, gradient_rounds)
    assert [asked.graph for asked in network.asked] == [False] * (rounds - trained) + [True] * trained
    assert len(predictions) == trained
    for logits, iou, points, labels in predictions:
        assert logits.shape == (1, 1, 4, 64, 64) and iou.shape == (1, 1, 4)
        assert logits.requires_grad and iou.requires_grad
        assert not points.requires_grad and points.shape[:3] == labels.shape


@pytest.mark.parametrize("mask_feedback", [True, False])
def test_rounds_without_gradient_keep_no_activations_of_the_network(mask_feedback):
    """With one trained round, a step of five keeps what a step of one does, but for its few more clicks."""
    network = recipe_network("vitt", 64, corrections=True)
    kept = {}
    for rounds in (1, 5):
        module, sizes = TrainingSimulator(network, 5, 1, mask_feedback), []

        def keep(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            step(module, seed=seed_of(rounds, module))
        kept[rounds] = sum(sizes)
    assert kept[1] <= kept[5] < 1.02 * kept[1]


def test_no_graph_is_kept_at_all_where_gradients_are_off():
    network = SpyNetwork()
    with torch.no_grad():
        predictions = step(TrainingSimulator(network, 3, 3))
    assert not any(asked.graph for asked in network.asked)
    assert not any(part.requires_grad for prediction in predictions for part in prediction)


@pytest.mark.parametrize("mask_feedback", [True, False])
def test_the_last_mask_is_shown_with_the_clicks_that_correct_it_or_never(mask_feedback):
    network = SpyNetwork()
    module = TrainingSimulator(network, 4, 4, mask_feedback)
    predictions = step(module, seed=seed_of(4, module))
    assert network.asked[0].mask_prompt is None
    for asked, (logits, *_) in zip(network.asked[1:], predictions):
        if mask_feedback:
            assert torch.equal(asked.mask_prompt, logits[:, :, 2:3])  # the answer of the best predicted IoU
            assert not asked.mask_prompt.requires_grad
        else:
            assert asked.mask_prompt is None


@pytest.mark.parametrize("gradient_rounds", [1, 4])
def test_each_round_adds_one_click_where_the_last_answer_is_wrong(gradient_rounds):
    network = SpyNetwork()
    module = TrainingSimulator(network, 4, gradient_rounds)
    step(module, seed=seed_of(4, module))
    assert [asked.points.shape for asked in network.asked] == [(1, 1, n, 2) for n in (1, 2, 3, 4)]
    answer = network.answer(IMAGE[0, 0], [[12, 12]], [1])
    wanted, *_ = OBJECT[0] > 0.5
    for before, asked in zip(network.asked, network.asked[1:]):
        assert torch.equal(asked.points[:, :, :-1], before.points)
        assert torch.equal(asked.labels[:, :, :-1], before.labels)
        assert asked.points.dtype == POINTS.dtype and asked.labels.dtype == LABELS.dtype
        x, y = asked.points[0, 0, -1].long().tolist()
        label = int(asked.labels[0, 0, -1])
        assert label in (0, 1)
        assert wanted[y, x] == label and answer[y, x] != label
        answer = network.answer(IMAGE[0, 0], asked.points[0, 0].long().tolist(), asked.labels[0, 0].tolist())
    assert (answer == wanted).all()  # three clicks put right what was wrong: two greys and one region
    assert network.asked[1].labels[0, 0, -1] == 0  # the largest error first


@pytest.mark.parametrize("size", [(64, 64), (96, 40)])
def test_each_trained_round_names_the_points_it_answers_as_shares_of_the_image(size):
    network = SpyNetwork()
    module = TrainingSimulator(network, 4, 2)
    height, width = size
    item = F.interpolate(IMAGE, size), POINTS, LABELS, F.interpolate(OBJECT, size)
    predictions = step(module, item, seed_of(4, module))
    for asked, (*_, points, labels) in zip(network.asked[2:], predictions, strict=True):
        torch.testing.assert_close(points * torch.tensor([width, height]), asked.points + 0.5)
        assert torch.equal(labels, asked.labels)


def test_a_right_answer_and_padding_get_padding_and_the_others_their_click_also_where_nothing_is():
    network = SpyNetwork()
    module = TrainingSimulator(network, 2, 2)
    right = picture((1.0, 8, 24, 30, 30))[:, :1]  # all of one grey
    points = torch.tensor([[[[10.0, 26.0]], [[12.0, 12.0]], [[-1.0, -1.0]], [[50.0, 50.0]]]])
    labels = torch.tensor([[[1], [1], [-1], [1]]])
    item = IMAGE, points, labels, torch.cat([right, OBJECT, torch.zeros(1, 2, 64, 64)], dim=1)
    step(module, item, seed_of(2, module))
    second = network.asked[1]
    assert second.labels[0, :, 1].tolist() == [PADDING, 0, PADDING, BACKGROUND]
    assert second.points[0, [0, 2], 1].tolist() == [[-1, -1]] * 2


def test_each_image_of_a_batch_gets_its_own_clicks():
    network = SpyNetwork()
    module = TrainingSimulator(network, 2, 2)
    turned = [t.transpose(2, 3) for t in (IMAGE, OBJECT)]
    item = (
        torch.cat([IMAGE, turned[0]]),
        torch.cat([POINTS, POINTS]),
        torch.cat([LABELS, LABELS]),
        torch.cat([OBJECT, turned[1]]),
    )
    predictions = step(module, item, seed_of(2, module))
    assert network.encoded == [(2, 3, 64, 64)]
    assert [logits.shape[:3] for logits, *_ in predictions] == [(2, 1, 4)] * 2
    for label, (x, y), image, wanted in zip(
        network.asked[1].labels[:, 0, 1], network.asked[1].points[:, 0, 1].long().tolist(), item[0], item[3]
    ):
        assert label == wanted[0, y, x] and image[0, y, x] == pytest.approx(0.4)  # in the region that was added


def test_soft_labels_are_cut_at_a_half():
    network = SpyNetwork()
    module = TrainingSimulator(network, 2, 2)
    soft = IMAGE, POINTS, LABELS, 0.6 * OBJECT + 0.3 * (1 - OBJECT)
    found = []
    for item in (ITEM, soft):
        network.asked.clear()
        step(module, item, seed_of(2, module))
        found.append(network.asked[1])
    assert torch.equal(found[0].points, found[1].points) and torch.equal(found[0].labels, found[1].labels)


@pytest.mark.parametrize("size", [(64, 64), (96, 40), (33, 129)])
def test_clicks_are_pixels_of_the_image_whatever_its_size(size):
    network = SpyNetwork()
    module = TrainingSimulator(network, 2, 1)
    height, width = size
    image = picture((0.5, 0, 0, width, height // 2), size=size)
    points = torch.tensor([[[[width - 5.0, height - 5.0]]]])  # the other half
    step(module, (image, points, LABELS, (image[:, :1] > 0.2).float()), seed_of(2, module))
    second = network.asked[1]
    assert second.size == size
    x, y = second.points[0, 0, 1].tolist()
    assert 0 <= x < width and 0 <= y < height
    assert (second.labels[0, 0, 1] == 1) == (y < height // 2)


@pytest.mark.parametrize("real", [False, True], ids=["spy", "network"])
def test_the_same_seed_gives_the_same_step(real):
    network = recipe_network("vitt", 64, corrections=True).requires_grad_(False) if real else SpyNetwork()
    module = TrainingSimulator(network, 4, 2)
    found = [step(module, seed=seed) for seed in (3, 3)]
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_the_users_clicks_follow_the_seed():
    network, places = SpyNetwork(), set()
    module = TrainingSimulator(network, 2, 1)
    for seed in range(20):
        network.asked.clear()
        step(module, seed=seed)
        if len(network.asked) == 2:
            places.add(tuple(network.asked[1].points[0, 0, 1].tolist()))
    assert len(places) > 5


def test_one_round_of_the_real_network_is_its_own_training_pass():
    network = recipe_network("vitt", 64).train().requires_grad_(False)
    ((logits, iou, *_),) = step(TrainingSimulator(network, 1, 1))
    expected_logits, expected_iou = network(IMAGE, POINTS, LABELS)
    assert torch.equal(logits, expected_logits) and torch.equal(iou, expected_iou)


def test_rounds_of_the_real_network_are_its_own_decoding_of_the_clicks_and_the_mask(monkeypatch):
    network = recipe_network("vitt", 64, corrections=True).requires_grad_(False)
    module, asked, decode_all = TrainingSimulator(network, 4, 4), [], network.decode_all
    monkeypatch.setattr(network, "decode_all", lambda *arguments: asked.append(arguments) or decode_all(*arguments))
    predictions = step(module, seed=seed_of(4, module))
    assert len(predictions) == len(asked) == 4
    for i, (logits, *_) in enumerate(predictions):
        embeddings, points, labels, size, mask = asked[i]
        if i > 0:
            before = predictions[i - 1]
            best = int(before[1].argmax())
            assert torch.equal(mask, before[0][:, :, best : best + 1])
        assert torch.equal(embeddings, network.encode_image(IMAGE))
        assert torch.equal(logits, decode_all(embeddings, points, labels, size, mask)[0])


def test_class_q_is_corrected_by_what_mask_1_and_q_says():
    network = SpyNetwork()
    module = TrainingSimulator(network, 2, 2, layout=LAYOUT)
    item = IMAGE, POINTS.expand(1, 3, 1, 2), LABELS.expand(1, 3, 1), OBJECT.expand(1, 3, 64, 64)
    predictions = step(module, item, seed_of(2, module))
    shown = network.asked[1].mask_prompt
    for q in range(3):
        assert torch.equal(shown[0, q, 0], predictions[0][0][0, q, 1 + q])
    assert (shown[0, 2] == -SURE).all()
    assert network.asked[1].labels[0, 2, 1] == 1  # nothing was found, all is missing


def test_a_class_that_is_not_there_is_corrected_where_another_is():
    network = SpyNetwork()
    module = TrainingSimulator(network, 2, 2, layout=LAYOUT)
    label = OBJECT.expand(2, 3, 64, 64).clone()
    label[0, 0], label[1] = 0, 0  # what is answered by mask 1, all that the object is not; and an image of padding
    item = IMAGE.expand(2, 3, 64, 64), POINTS.expand(2, 3, 1, 2), LABELS.expand(2, 3, 1), label
    step(module, item, seed_of(2, module))
    assert network.asked[1].labels[0, 0, 1] == 0
    assert (network.asked[1].labels[1, :, 1] == PADDING).all()


@pytest.mark.parametrize("shown", [(True, False), (False, True), (True, True), (False, False)], ids=str)
def test_masks_of_the_slice_before_are_shown_with_the_first_prompts_of_their_images(shown):
    network = SpyNetwork()
    module = TrainingSimulator(network, 1, 1)
    images = torch.cat([IMAGE, 0.5 * IMAGE])
    previous = torch.stack([OBJECT[0] * each for each in shown]).to(torch.uint8)
    item = images, POINTS.expand(2, 1, 1, 2), LABELS.expand(2, 1, 1), OBJECT.expand(2, 1, 64, 64)
    (found,) = step(module, (*item, previous), seed_of(1, module))
    for b in range(2):  # each image has its own answer
        alone = TrainingSimulator(SpyNetwork(), 1, 1)
        (expected,) = step(alone, tuple(each[b : b + 1] for each in (*item, previous)), seed_of(1, alone))
        assert torch.equal(found[0][b], expected[0][0]) and torch.equal(found[1][b], expected[1][0])
    masks = [asked.mask_prompt for asked in network.asked]
    assert [mask is not None for mask in masks] == [True] * any(shown) + [False] * (not all(shown))
    for mask in masks:
        assert mask is None or torch.equal(mask > 0, network.shrink(OBJECT)[None].expand(mask.shape) > 0.5)


def train(module, items, accumulation_steps):
    """Run one epoch of MONAI's trainer over items and give the gradients that the optimiser saw."""
    seen = []

    class NotedSGD(torch.optim.SGD):
        def step(self, closure=None):
            seen.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
            return super().step(closure)

    keys = "image", "points", "point_labels", "label"
    batches = [dict(zip(keys, item)) for item in items]
    torch.manual_seed(0)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=batches,
        network=module,
        optimizer=NotedSGD([p for p in module.parameters() if p.requires_grad], lr=0.0),
        loss_function=PromptedMaskLoss(DiceLoss(sigmoid=True, reduction="none")),
        prepare_batch=PrepareBatchExtraInput({"points": "points", "point_labels": "point_labels", "label": "label"}),
        inferer=SimpleInferer(),
        accumulation_steps=accumulation_steps,
        decollate=False,
    )
    trainer.run()
    return seen


def trained_network():
    return train_only(recipe_network("vitt", 64, corrections=True), ["mask_decoder", "prompt_encoder", "neck"])


TURNED = IMAGE.transpose(2, 3), POINTS, LABELS, OBJECT.transpose(2, 3)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_monais_trainer_sees_the_gradients_of_the_steps_taken_by_hand(accumulation_steps):
    items, loss = [ITEM, TURNED], PromptedMaskLoss(DiceLoss(sigmoid=True, reduction="none"))
    module = TrainingSimulator(trained_network(), 3, 2)
    seen = train(module, items, accumulation_steps)
    assert len(seen) == 2 // accumulation_steps
    module = TrainingSimulator(trained_network().train(), 3, 2)
    torch.manual_seed(0)
    expected = []
    for i, item in enumerate(items):
        (loss(module(*item), item[3]) / accumulation_steps).backward()
        if (i + 1) % accumulation_steps == 0:
            expected.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
            module.zero_grad()
    for found, wanted in zip(seen, expected):
        assert found.keys() >= wanted.keys() and any(gradient.any() for gradient in wanted.values())
        for name, seen_gradient in found.items():  # those of a step before stay as zeros
            gradient = wanted.get(name, torch.zeros_like(seen_gradient))
            torch.testing.assert_close(seen_gradient, gradient, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


class LinearSpy(SpyNetwork):
    """A spy whose halves are layers that mixed precision casts."""

    def __init__(self) -> None:
        super().__init__(16)
        self.encode, self.decode = nn.Linear(16, 16), nn.Linear(16, 16)

    def encode_image(self, image):
        return self.encode(super().encode_image(image))

    def decode_all(self, embeddings, *arguments):
        logits, iou = super().decode_all(embeddings.float(), *arguments)
        return self.decode(logits + embeddings.unsqueeze(1)), iou


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_mixed_precision_keeps_shapes_and_the_gradients_of_the_trained_rounds(rounds):
    """A weight cast in a round without gradients must not stay without in the rounds that are trained."""
    image, label = IMAGE[..., 4:20, 4:20], OBJECT[..., 4:20, 4:20]
    network = LinearSpy()
    module = TrainingSimulator(network, 3, 1)
    seed = seed_of(rounds, module)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = step(module, (image, POINTS, LABELS, label), seed)
        loss = PromptedMaskLoss(DiceLoss(sigmoid=True, reduction="none"))(predictions, label)
    assert [(logits.shape, logits.dtype) for logits, *_ in predictions] == [((1, 1, 4, 16, 16), torch.bfloat16)]
    assert len(network.asked) == rounds and loss.dtype == torch.float32
    loss.backward()
    for layer in (network.encode, network.decode):
        assert layer.weight.grad.any() and layer.bias.grad.any()


def gradients_of(module, rank):
    """Take one step of a rank, on its own item and random numbers, and give each parameter's gradient, 0 for none."""
    item = (ITEM, TURNED)[rank]
    predictions = step(module, item, seed_of((1, 3)[rank], getattr(module, "module", module)))  # ranks differ in rounds
    PromptedMaskLoss(DiceLoss(sigmoid=True, reduction="none"))(predictions, item[3]).backward()
    parameters = dict(getattr(module, "module", module).named_parameters())
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items() if p.requires_grad}


def run_rank(rank, folder):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    module = TrainingSimulator(trained_network().train(), 3, 2)
    parallel = nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
    torch.save(gradients_of(parallel, rank), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_average_their_gradients_though_they_differ_in_rounds(tmp_path):
    mp.spawn(run_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    module = TrainingSimulator(trained_network().train(), 3, 2)
    alone = [gradients_of(copy.deepcopy(module), rank) for rank in range(2)]
    assert first.keys() == second.keys() == alone[0].keys()
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]), name
        average = (alone[0][name] + alone[1][name]) / 2
        torch.testing.assert_close(gradient, average, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    feedback = "network.prompt_encoder.mask_downscaling.0.weight"
    assert not alone[0][feedback].any() and first[feedback].any()  # one process had one round, without a mask
