# SPDX-License-Identifier: Apache-2.0
"""Prompts drawn from labels: new ones at every visit in training, the same ones for ever in validation."""

import json

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from scripts.prompts.case_id import UNION_OBJECT
from scripts.prompts.class_layout import ClassLayout
from scripts.transforms import RandPromptsd, SeededPromptsd

LAYOUT = ClassLayout({"a": [1, 2, 3], "b": [2, 3], "c": [3]})
KINDS = ["click_1", "box", "box_jittered", "box_jittered_5", "click_box"]
SLOTS = {"click_1": 1, "click_box": 3}  # points that a kind of prompt has; the others are boxes of two
BOXES = [[[60, 3], [77, 19]], [[5, 30], [9, 44]]]
HEIGHT, WIDTH = 50, 80
ENTIRE = [[0, 0], [WIDTH - 1, HEIGHT - 1]]


def masks():
    """Two upright objects of a picture of 50 rows and 80 columns, and one that is empty."""
    masks = torch.zeros((3, HEIGHT, WIDTH), dtype=torch.uint8)
    masks[0, 3:20, 60:78] = 1
    masks[1, 30:45, 5:10] = 1
    return masks


def case(names=("1", "2", "3"), image="a.png", k=0, label=None):
    text = json.dumps({"image": image, "slice": k, "objects": list(names)})
    return {"case": text, "label": masks() if label is None else label}


def drawn(data):
    """The prompts of training as lists."""
    return data["points"].tolist(), data["point_labels"].tolist()


def kind_of(labels):
    return {(1, -1, -1): "click", (2, 3, -1): "box", (1, 2, 3): "click_box", (-1, -1, -1): "none"}[tuple(labels)]


@pytest.fixture(params=["rand", "case"])
def draw(request):
    """Draw one kind of prompt by each of the two transforms: points (Q, N, 2) and labels (Q, N)."""

    def rand(kind, item, **options):
        data = RandPromptsd({kind: 1.0}, **options).set_random_state(0)(item)
        return data["points"], data["point_labels"]

    def of_case(kind, item, **options):
        prompt = SeededPromptsd([kind], **options)(item)["prompts"][kind]
        return prompt["points"], prompt["labels"]

    return {"rand": rand, "case": of_case}[request.param]


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_have_the_one_form(draw, kind):
    points, labels = draw(kind, case())
    assert points.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert points.shape == (*labels.shape, 2)
    assert len(labels) == 3
    assert ((labels == -1) == (points == -1).all(-1)).all()
    assert (labels != -1).sum(1).tolist() == [SLOTS.get(kind, 2)] * 2 + [0]


def test_clicks_are_in_their_own_masks(draw):
    label = masks()
    for visit in range(50):
        points, labels = draw("click_1", case(image=f"{visit}.png"))
        for q in (0, 1):
            x, y = points[q, 0].int().tolist()
            assert label[q, y, x] == 1
            assert labels[q, 0] == 1


def test_box_is_exact(draw):
    points, labels = draw("box", case(), jitter=0.5)
    assert points[:2, :2].tolist() == BOXES
    assert labels[:2, :2].tolist() == [[2, 3], [2, 3]]


@pytest.mark.parametrize(
    ("kind", "jitter", "most"),
    [
        ("box_jittered", 0.0, 0.0),
        ("box_jittered", 0.3, 0.3),
        ("box_jittered_0", 0.3, 0.0),
        ("box_jittered_5", 0.3, 0.05),
        ("box_jittered_20", 0.0, 0.2),
    ],
)
def test_jittered_box_moves_by_its_own_percent_or_else_by_the_jitter(draw, kind, jitter, most):
    boxes = torch.tensor([[[30, 20], [49, 29]]]).float()
    label = torch.zeros(1, HEIGHT, WIDTH)
    label[0, 20:30, 30:50] = 1
    visits = [case(["1"], f"{visit}.png", label=label) for visit in range(30)]
    moves = torch.stack([draw(kind, one, jitter=jitter)[0][0, :2] for one in visits]) - boxes
    assert (moves.abs() <= most * torch.tensor([20, 10]) + 1e-5).all()
    assert bool(moves.any()) == bool(most)


def test_click_and_box_are_asked_with_together(draw):
    points, labels = draw("click_box", case(), jitter=0.0)
    assert labels[:2].tolist() == [[1, 2, 3]] * 2
    assert points[:2, 1:].tolist() == BOXES
    for q in (0, 1):
        x, y = points[q, 0].int().tolist()
        assert masks()[q, y, x] == 1
    jittered, _ = draw("click_box", case(), jitter=0.2)
    assert jittered[:2, 1:].tolist() != BOXES


def test_soft_masks_are_asked_for_where_most_raters_see_the_object(draw):
    label = torch.full((1, HEIGHT, WIDTH), 1 / 3)
    label[0, 20:30, 30:50] = 2 / 3
    assert draw("box", case(["1"], label=label))[0][0, :2].tolist() == [[30, 20], [49, 29]]
    x, y = draw("click_1", case(["1"], label=label))[0][0, 0].int().tolist()
    assert label[0, y, x] > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_object_of_one_pixel_is_asked_for_by_that_pixel(draw, kind):
    label = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
    label[0, 49, 79] = 1
    points, labels = draw(kind, case(["1"], label=label), jitter=0.2)
    asked = points[0][labels[0] != -1]
    np.testing.assert_allclose(asked, np.tile([79, 49], (len(asked), 1)), atol=0.2)
    assert (asked <= torch.tensor([79, 49])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_object_that_left_the_picture_gets_no_prompt(draw, kind):
    points, labels = draw(kind, case())
    assert (points[2] == -1).all()
    assert (labels[2] == -1).all()


@pytest.mark.parametrize("kind", ["click_1", "box", "click_box"])
def test_objects_asked_for_together_have_one_prompt_drawn_for_all(draw, kind):
    points, labels = draw(kind, case(), layout=LAYOUT, jitter=0.0)
    assert (points == points[0]).all()
    assert labels[0][labels[0] >= 0].tolist() == {"click_1": [1], "box": [2, 3], "click_box": [1, 2, 3]}[kind]
    assert (labels[1:] == torch.where(labels[0] == 1, 4, labels[0])).all()  # an inner class need not be there
    if kind != "click_1":
        assert points[0][labels[0] > 1].tolist() == [[5, 3], [77, 44]]
    if kind != "box":
        x, y = points[0, 0].int().tolist()
        assert masks()[:, y, x].any()


@pytest.mark.parametrize(
    "kind", ["clicks", "click_2", "box_jitter", "box_jittered_", "box_jittered_5%", "box_5", "", "whole_1"]
)
@pytest.mark.parametrize("make", [lambda kind: RandPromptsd({kind: 1.0}), lambda kind: SeededPromptsd(["box", kind])])
def test_unknown_kind_is_refused_with_those_that_are_known(make, kind):
    with pytest.raises(ValueError, match=r"click_1, box, box_jittered, .* click_box, whole, got") as caught:
        make(kind)
    assert repr(kind) in str(caught.value)


@pytest.mark.parametrize(
    ("transform", "added"),
    [(RandPromptsd({"box": 1.0}), {"points", "point_labels", "previous"}), (SeededPromptsd(["box"]), {"prompts"})],
    ids=["rand", "case"],
)
def test_other_keys_and_the_item_itself_stay(transform, added):
    item = {**case(), "image": "image"}
    assert set(transform(item)) == {"case", "label", "image", *added}
    assert set(item) == {"case", "label", "image"}


# --- training


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: Compose([t])], ids=["alone", "in-a-compose"])
def test_random_prompts_follow_the_random_state(wrap):
    transform = wrap(RandPromptsd({"click_1": 0.4, "box_jittered": 0.3, "click_box": 0.3}))
    visits = []
    for seed in (1, 1, 2):
        transform.set_random_state(seed)
        visits.append([drawn(transform(case())) for _ in range(5)])
    assert visits[0] == visits[1] != visits[2]
    assert visits[0][0] != visits[0][1]  # anew at every visit


@pytest.mark.parametrize(
    "kinds",
    [
        {"click_1": 0.25, "box": 0.75},
        {"click_1": 1.0},
        {"click_1": 0.0, "box": 1.0},
        {"click_1": 0.5, "box_jittered_5": 0.2, "click_box": 0.3},
    ],
)
def test_random_prompts_are_of_each_kind_as_often_as_asked(kinds):
    transform = RandPromptsd(kinds).set_random_state(0)
    found = [kind_of(labels) for _ in range(400) for labels in transform(case())["point_labels"][:2].tolist()]
    for kind, share in kinds.items():
        name = {"click_1": "click", "click_box": "click_box"}.get(kind, "box")
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("kinds", [{"click_1": 0.5}, {"click_1": 0.7, "box": 0.7}, {}])
def test_probabilities_that_do_not_add_up_are_refused(kinds):
    with pytest.raises(ValueError, match="must add up to 1"):
        RandPromptsd(kinds)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_as_many_slots_as_the_others_so_that_batches_collate(kind):
    data = RandPromptsd({kind: 1.0})(case())
    assert data["points"].shape == (3, 3, 2)
    assert data["point_labels"].shape == (3, 3)


@pytest.mark.parametrize("layout", [None, LAYOUT])
def test_item_of_everything_is_asked_for_by_the_whole_image(layout):
    data = RandPromptsd({"click_1": 1.0}, layout=layout)({**case(), "whole": True})
    assert data["points"][:, :2].tolist() == [ENTIRE] * 3  # also where the object has left the picture
    assert data["point_labels"].tolist() == [[2, 3, -1]] * 3
    assert "whole" not in data


def test_item_of_some_objects_is_asked_for_as_usual():
    data = RandPromptsd({"click_1": 1.0})({**case(), "whole": False})
    assert data["point_labels"][:, 0].tolist() == [1, 1, -1]
    assert "whole" not in data


# --- validation


def of_kind(data, kind):
    prompt = data["prompts"][kind]
    return prompt["points"].tolist(), prompt["labels"].tolist()


def test_case_prompts_hold_every_object_for_each_kind():
    data = SeededPromptsd(KINDS)(case())
    assert list(data["prompts"]) == KINDS
    assert [len(prompt["labels"]) for prompt in data["prompts"].values()] == [3] * 5
    assert data["prompts"]["box"]["points"][:2].tolist() == BOXES
    assert data["prompts"]["click_1"]["labels"].tolist() == [[1], [1], [-1]]


def test_case_of_everything_is_asked_for_by_the_whole_image_alone():
    transform = SeededPromptsd(["click_1", "whole", "box"])
    data = transform(case([UNION_OBJECT], label=masks()[:1]))
    assert list(data["prompts"]) == ["whole"]
    assert of_kind(data, "whole") == ([ENTIRE], [[2, 3]])
    assert list(transform(case())["prompts"]) == ["click_1", "box"]


def test_case_asked_for_together_has_every_kind_also_the_whole_image():
    data = SeededPromptsd(["click_1", "whole", "box"], layout=LAYOUT)(case())
    assert list(data["prompts"]) == ["click_1", "whole", "box"]
    assert of_kind(data, "whole") == ([ENTIRE] * 3, [[2, 3]] * 3)
    assert of_kind(data, "box")[0] == [[[5, 3], [77, 44]]] * 3


def test_case_prompts_are_the_same_at_every_visit_whatever_the_global_random_state():
    transform = SeededPromptsd(KINDS)
    np.random.seed(0)
    torch.manual_seed(0)
    first = [of_kind(transform(case()), kind) for kind in KINDS]
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    transform(case(image="b.png"))
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    np.random.seed(1)
    torch.manual_seed(1)
    assert [of_kind(transform(case()), kind) for kind in KINDS] == first


def test_case_prompts_are_the_same_in_every_process():
    """Recorded once: no hash that a process salts, no order of visits."""
    prompts = SeededPromptsd(["click_1", "box_jittered"])(case())["prompts"]
    assert prompts["click_1"]["points"][:2, 0].tolist() == [[72, 3], [7, 43]]
    np.testing.assert_allclose(prompts["box_jittered"]["points"][0], [[59.7263, 1.3004], [77.2402, 19.1147]], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_case_prompt_of_an_object_does_not_depend_on_its_neighbours_or_on_other_kinds(kind):
    together, _ = of_kind(SeededPromptsd(KINDS)(case()), kind)
    for q, name in enumerate("12"):
        alone, _ = of_kind(SeededPromptsd([kind])(case([name], label=masks()[q : q + 1])), kind)
        assert alone == [together[q]]


@pytest.mark.parametrize("change", [{"image": "b.png"}, {"k": 1}, {"names": ("7", "8", "9")}])
@pytest.mark.parametrize("kind", ["click_1", "box_jittered", "box_jittered_5", "click_box"])
def test_case_prompts_differ_between_cases(kind, change):
    transform = SeededPromptsd([kind])
    assert of_kind(transform(case()), kind) != of_kind(transform(case(**change)), kind)


def test_case_prompts_need_a_name_for_each_mask():
    with pytest.raises(ValueError, match="zip"):
        SeededPromptsd(["box"])(case(["1", "2"]))
