# SPDX-License-Identifier: Apache-2.0
"""Prompts drawn from labels: new ones at every visit in training, the same ones for ever in validation."""

import json

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from scripts.transforms import CasePromptsd, RandPromptsd

KINDS = ["click_1", "box", "box_jittered"]


def masks():
    """Two upright objects of a picture of 50 rows and 80 columns, and one that is empty."""
    masks = torch.zeros((3, 50, 80), dtype=torch.uint8)
    masks[0, 3:20, 60:78] = 1
    masks[1, 30:45, 5:10] = 1
    return masks


def case(names=("1", "2", "3"), image="a.png", k=0, label=None):
    text = json.dumps({"image": image, "slice": k, "objects": list(names)})
    return {"case": text, "label": masks() if label is None else label}


def prompts(data):
    return data["points"].tolist(), data["point_labels"].tolist()


def kind_of(labels):
    return {(1, -1): "click", (2, 3): "box", (-1, -1): "none"}[tuple(labels)]


@pytest.fixture(params=["rand", "case"])
def transform(request):
    """Each of the two transforms, made for one kind of prompt."""
    if request.param == "rand":
        return lambda kind, **options: RandPromptsd({kind: 1.0}, **options)
    return lambda kind, **options: CasePromptsd([kind], **options)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_have_the_one_form(transform, kind):
    data = transform(kind)(case())
    assert (data["points"].shape, data["points"].dtype) == ((3, 2, 2), torch.float32)
    assert (data["point_labels"].shape, data["point_labels"].dtype) == ((3, 2), torch.int64)


def test_clicks_are_in_their_own_masks(transform):
    draw, label = transform("click_1"), masks()
    for visit in range(50):
        data = draw(case(image=f"{visit}.png"))
        for q in (0, 1):
            x, y = data["points"][q, 0].int().tolist()
            assert label[q, y, x] == 1
            assert data["point_labels"][q].tolist() == [1, -1]


def test_box_is_exact(transform):
    data = transform("box", jitter=0.5)(case())
    assert data["points"][:2].tolist() == [[[60, 3], [77, 19]], [[5, 30], [9, 44]]]
    assert data["point_labels"][:2].tolist() == [[2, 3], [2, 3]]


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_jittered_box_moves_by_the_jitter(transform, jitter):
    moves = transform("box_jittered", jitter=jitter)(case())["points"][0] - torch.tensor([[60, 3], [77, 19]])
    assert moves.abs().max() <= jitter * 18
    assert bool(moves.any()) == bool(jitter)


@pytest.mark.parametrize("kind", KINDS)
def test_object_that_left_the_picture_gets_no_prompt(transform, kind):
    data = transform(kind)(case())
    assert data["points"][2].tolist() == [[-1, -1], [-1, -1]]
    assert data["point_labels"][2].tolist() == [-1, -1]


def test_unknown_kind_is_refused_with_those_that_are_known(transform):
    with pytest.raises(ValueError, match="click_1, box, box_jittered, got 'clicks'"):
        transform("clicks")


def test_other_keys_and_the_item_itself_stay(transform):
    item = {**case(), "image": "image"}
    assert set(transform("box")(item)) == {"case", "label", "image", "points", "point_labels"}
    assert set(item) == {"case", "label", "image"}


# --- training


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: Compose([t])], ids=["alone", "in-a-compose"])
def test_random_prompts_follow_the_random_state(wrap):
    transform = wrap(RandPromptsd({"click_1": 0.5, "box_jittered": 0.5}))
    drawn = []
    for seed in (1, 1, 2):
        transform.set_random_state(seed)
        drawn.append([prompts(transform(case())) for _ in range(5)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0] != drawn[0][1]  # anew at every visit


@pytest.mark.parametrize(
    ("kinds", "clicks"),
    [({"click_1": 0.25, "box": 0.75}, 0.25), ({"click_1": 1.0}, 1.0), ({"click_1": 0.0, "box": 1.0}, 0.0)],
)
def test_random_prompts_are_of_each_kind_as_often_as_asked(kinds, clicks):
    transform = RandPromptsd(kinds).set_random_state(0)
    drawn = [kind_of(labels) for _ in range(400) for labels in transform(case())["point_labels"][:2].tolist()]
    assert drawn.count("click") / len(drawn) == pytest.approx(clicks, abs=0.05)
    assert drawn.count("click") + drawn.count("box") == len(drawn)


@pytest.mark.parametrize("kinds", [{"click_1": 0.5}, {"click_1": 0.7, "box": 0.7}, {}])
def test_probabilities_that_do_not_add_up_are_refused(kinds):
    with pytest.raises(ValueError, match="must add up to 1"):
        RandPromptsd(kinds)


# --- validation


def test_case_prompts_hold_all_objects_of_a_kind_then_those_of_the_next():
    data = CasePromptsd(KINDS)(case())
    kinds = [kind_of(labels) for labels in data["point_labels"].tolist()]
    assert kinds == ["click", "click", "none", "box", "box", "none", "box", "box", "none"]
    assert data["points"][3].tolist() == [[60, 3], [77, 19]]
    assert data["points"][4].tolist() == [[5, 30], [9, 44]]


def test_case_prompts_are_the_same_at_every_visit_whatever_the_global_random_state():
    transform = CasePromptsd(KINDS)
    np.random.seed(0)
    torch.manual_seed(0)
    first = prompts(transform(case()))
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    transform(case(image="b.png"))
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    np.random.seed(1)
    torch.manual_seed(1)
    assert prompts(transform(case())) == first


def test_case_prompts_are_the_same_in_every_process():
    """Recorded once: no hash that a process salts, no order of visits."""
    data = CasePromptsd(["click_1", "box_jittered"])(case())
    assert data["points"][:2, 0].tolist() == [[72, 3], [7, 43]]
    np.testing.assert_allclose(data["points"][3], [[59.7263, 1.3004], [77.2402, 19.1147]], atol=1e-3)


def test_case_prompt_of_an_object_does_not_depend_on_its_neighbours():
    transform = CasePromptsd(KINDS)
    together = transform(case())["points"].unflatten(0, (3, 3))
    for q, name in enumerate("123"):
        alone = transform(case([name], label=masks()[q : q + 1]))["points"]
        np.testing.assert_array_equal(alone, together[:, q])


@pytest.mark.parametrize("change", [{"image": "b.png"}, {"k": 1}, {"names": ("7", "8", "9")}])
@pytest.mark.parametrize("kind", ["click_1", "box_jittered"])
def test_case_prompts_differ_between_cases(kind, change):
    transform = CasePromptsd([kind])
    assert prompts(transform(case())) != prompts(transform(case(**change)))


def test_case_prompts_are_aligned_with_a_network_larger_than_the_image():
    plain, aligned = CasePromptsd(KINDS)(case()), CasePromptsd(KINDS, image_size=800)(case())
    labels = plain["point_labels"]
    assert torch.equal(aligned["point_labels"], labels)
    assert torch.equal(aligned["points"][labels == 2], plain["points"][labels == 2])
    for label in (1, 3):
        moved = (aligned["points"] - plain["points"])[labels == label]
        assert ((moved > 0) & (moved < 1)).all()


def test_case_prompts_need_a_name_for_each_mask():
    with pytest.raises(ValueError, match="zip"):
        CasePromptsd(["box"])(case(["1", "2"]))
