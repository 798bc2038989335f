# SPDX-License-Identifier: Apache-2.0
"""A session of prompts: what is looked at, how often it is encoded, and where the answer lies on the image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scripts.inferers.session import CHUNK, OUTSIDE_LOGIT, PromptSession
from scripts.prompts.crops import SmallObjectCropper
from scripts.prompts.form import BACKGROUND, FOREGROUND, PADDING
from tests.engines.spy import PREDICTED_IOU, SpyNetwork, picture
from tests.networks.recipe import recipe_network

SIDE = 64  # of the spy's image
SIZE = (128, 192)  # H, W: two and three times that
SMALL = (150, 90, 158, 96)  # x0, y0, x1, y1 with ends outside
CROP = (138, 77, 170, 109)  # 32 pixels, which the network sees doubled
LARGE = (10, 10, 90, 80)


def clicks(*points):
    """Give one object's points (x, y, label), a label of 1 unless given."""
    full = [(*point, FOREGROUND)[:3] for point in points]
    return np.array([point[:2] for point in full], np.float32), np.array([point[2] for point in full])


def box(x0, y0, x1, y1, *more):
    """Give the box around a patch, whose ends lie outside, and more points."""
    xy, labels = clicks(*more) if more else (np.zeros((0, 2), np.float32), np.zeros(0, int))
    return np.concatenate([[[x0, y0], [x1 - 1, y1 - 1]], xy]).astype(np.float32), np.concatenate([[2, 3], labels])


def lopsided(x0, y0, x1, y1, size=SIZE):
    """Draw a bright patch whose upper right quarter is missing: no turn or flip maps it to itself."""
    image = picture((1.0, x0, y0, x1, y1), size=size)
    image[:, :, y0 : (y0 + y1) // 2, (x0 + x1) // 2 : x1] = 0
    return image


TOLERANCE = 0.4  # of greys, which blend at the edge of a patch


def session(image, network=None, crop=True, **settings):
    network = network or SpyNetwork(SIDE, TOLERANCE)
    return network, PromptSession(network, image, SmallObjectCropper(SIDE, below=16) if crop else None, **settings)


def grown(image):
    """Give the network's view of a part of an image."""
    return F.interpolate(image, [SIDE, SIDE], mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def real():
    """A network to whom background clicks and masks mean something; tests leave it as it is."""
    return recipe_network("vitt", 64, corrections=True).requires_grad_(False)


@pytest.fixture(scope="module")
def noise():
    return torch.rand(1, 3, 90, 130, generator=torch.Generator().manual_seed(0))


LARGE_OBJECTS = [clicks((31, 40)), box(12, 20, 101, 82), clicks((60, 33), (5, 80, BACKGROUND)), box(0, 0, 130, 90)]


@pytest.mark.parametrize("prompt", LARGE_OBJECTS)
def test_without_a_crop_the_answer_is_that_of_the_networks_own_forward(real, noise, prompt):
    logits, iou = PromptSession(real, noise).predict([prompt])
    points, labels = (torch.from_numpy(part)[None, None] for part in prompt)
    torch.testing.assert_close(logits[None], real(noise, points, labels), atol=1e-4, rtol=0)
    expected = real.decode_best(real.encode_image(noise), points, labels, (90, 130))[1]
    torch.testing.assert_close(iou[None], expected, atol=1e-5, rtol=0)


def test_rounds_of_the_real_network_are_shown_their_own_masks(real, noise):
    embeddings, low, current = real.encode_image(noise), None, PromptSession(real, noise)
    prompt = [(31, 40), (60, 33), (5, 80, BACKGROUND), (100, 3, BACKGROUND)]
    for count in range(1, 5):
        logits, _ = current.predict([clicks(*prompt[:count])])
        points, labels = (torch.from_numpy(part)[None, None] for part in clicks(*prompt[:count]))
        low, _ = real.decode_best(embeddings, points, labels, (90, 130), low)
        torch.testing.assert_close(logits[None], real.upscale(low[:, :, 0], (90, 130)), atol=1e-3, rtol=0)


def test_points_on_the_whole_image_go_to_the_network_as_they_were_placed():
    network, current = session(picture(size=(16, 32)), crop=False)
    current.predict([box(3, 2, 8, 12, (5, 6))])
    assert network.asked[0].points[0, 0].tolist() == [[3, 2], [7, 11], [5, 6]]
    assert network.asked[0].size == (16, 32)


def test_a_large_object_is_never_cropped_and_the_image_encoded_once():
    network, current = session(picture((1.0, *LARGE), size=SIZE))
    for prompt in (box(*LARGE), box(*LARGE, (50, 50)), box(*LARGE, (50, 50), (180, 120, BACKGROUND))):
        logits, iou = current.predict([prompt])
    assert network.encoded == [(1, 3, *SIZE)]
    assert len(network.asked) == 3
    assert logits.shape == (1, *SIZE) and (logits > OUTSIDE_LOGIT).all()
    assert iou.tolist() == [PREDICTED_IOU]


def test_the_box_of_a_small_object_goes_to_its_crop_at_once():
    image = lopsided(*SMALL)
    network, current = session(image)
    logits, iou = current.predict([box(*SMALL)])
    x0, y0, x1, y1 = CROP
    assert network.encoded == [(1, 3, SIDE, SIDE)]  # and never the whole image
    assert current.views[0].crop == CROP
    expected = network.encode_image(grown(image[:, :, y0:y1, x0:x1]))
    assert torch.equal(current.embedding_cache[current.views[0].crop], expected)
    assert iou.tolist() == [PREDICTED_IOU]
    outside = torch.ones(SIZE, dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    assert (logits[0][outside] == OUTSIDE_LOGIT).all() and (logits[0][~outside] > OUTSIDE_LOGIT).all()
    assert len(network.asked) == 1 and network.asked[0].mask_prompt is None


@pytest.mark.parametrize("size", [SIZE, (192, 128), (100, 300)])
@pytest.mark.parametrize(
    ("x", "y"), [(50, 40), (0, 0), (1, 80), (116, 90), (60, 0)], ids=["inside", "corner", "left", "corner 2", "top"]
)
def test_the_answer_lies_where_the_object_lies(size, x, y):
    patch = (x, y, x + 10, y + 8)
    image = lopsided(*patch, size=size)
    _, current = session(image)
    logits, _ = current.predict([box(*patch, (x + 2, y + 6))])
    assert current.views[0].crop is not None
    assert torch.equal(logits[0] > 0, image[0, 0] > 0.5)
    _, current = session(image)
    logits, _ = current.predict([clicks((x + 2, y + 6))])  # whose crop need not be half or twice as large
    assert current.views[0].crop is not None
    assert ((logits[0] > 0) != (image[0, 0] > 0.5)).sum() <= 6


def test_a_click_looks_at_the_whole_image_first_and_then_closer():
    image = lopsided(*SMALL)
    network, current = session(image)
    current.predict([clicks((152, 94))])
    assert network.encoded == [(1, 3, *SIZE), (1, 3, SIDE, SIDE)]
    assert len(network.asked) == 2
    assert [asked.mask_prompt for asked in network.asked] == [None, None]  # the first was of another view
    whole, close = (asked.points[0, 0, 0] for asked in network.asked)
    assert whole.tolist() == [152, 94]
    x0, y0 = current.views[0].crop[:2]
    torch.testing.assert_close(close, torch.tensor([(152 - x0) * 2 + 0.5, (94 - y0) * 2 + 0.5]))


def test_a_click_on_a_large_object_stays_with_the_whole_image():
    network, current = session(picture((1.0, *LARGE), size=SIZE))
    current.predict([clicks((50, 50))])
    assert network.encoded == [(1, 3, *SIZE)]
    assert len(network.asked) == 1


class Blind(SpyNetwork):
    """A network that finds nothing."""

    def answer(self, grey, xy, labels):
        return torch.zeros_like(grey, dtype=torch.bool)


@pytest.mark.parametrize("point", [(100, 60), (0, 0), (191, 127)], ids=str)
def test_an_object_of_which_nothing_is_found_is_looked_for_around_its_click(point):
    network, current = session(picture(size=SIZE), Blind(SIDE, TOLERANCE))
    logits, _ = current.predict([clicks(point)])
    x0, y0, x1, y1 = current.views[0].crop
    assert x1 - x0 == y1 - y0 == 32
    assert x0 <= point[0] < x1 and y0 <= point[1] < y1
    assert not (logits > 0).any()
    current.predict([clicks(point, (point[0], point[1]))])
    assert len(network.encoded) == 2


@pytest.mark.parametrize(
    "prompt",
    [clicks((20, 20, BACKGROUND)), clicks((-1, -1, PADDING)), (np.zeros((0, 2), np.float32), np.zeros(0, np.int64))],
    ids=["background alone", "padding", "nothing"],
)
def test_an_object_that_nothing_points_at_stays_with_the_whole_image(real, prompt):
    for network in (Blind(SIDE, TOLERANCE), real):
        _, current = session(picture(size=SIZE), network)
        network_logits, iou = current.predict([prompt])
        assert network_logits.shape == (1, *SIZE) and iou.shape == (1,)
        if network is not real:
            assert current.views[0].crop is None


def test_a_crop_is_encoded_once_over_the_rounds_and_shown_its_mask():
    image = lopsided(*SMALL)
    network, current = session(image)
    points = [(152, 94), (151, 91), (160, 100, BACKGROUND), (140, 80, BACKGROUND)]
    for count in range(1, 5):
        current.predict([box(*SMALL, *points[:count])])
    assert network.encoded == [(1, 3, SIDE, SIDE)]
    assert [asked.mask_prompt is None for asked in network.asked] == [True, False, False, False]
    for asked in network.asked[1:]:
        assert asked.points.shape[:2] == (1, 1)
        assert torch.equal(
            asked.mask_prompt, network.decode_best(current.embedding_cache[current.views[0].crop], *before(asked))[0]
        )


def before(asked):
    """Give the arguments of the call whose answer was a call's mask prompt, for a spy that needs no mask prompt."""
    return asked.points[:, :, :-1], asked.labels[:, :, :-1], asked.size


@pytest.mark.parametrize("crop", [True, False])
def test_without_feedback_no_mask_is_ever_shown(crop):
    network, current = session(lopsided(*SMALL), crop=crop, mask_feedback=False)
    for count in (1, 2, 3):
        current.predict([box(*SMALL, *[(152, 94)] * count)])
    assert [asked.mask_prompt for asked in network.asked] == [None] * 3


def test_feedback_is_the_low_resolution_answer_of_the_round_before():
    network, current = session(picture((1.0, *LARGE), size=SIZE), crop=False)
    first, _ = current.predict([clicks((50, 50))])
    current.predict([clicks((50, 50), (100, 100))])
    shown = network.asked[1].mask_prompt
    assert shown.shape == (1, 1, 1, SIDE, SIDE)
    torch.testing.assert_close(network.upscale(shown[0, 0], SIZE), first)


def test_a_click_outside_the_crop_widens_the_view_to_hold_it():
    image = lopsided(*SMALL)
    image[:, :, 70:75, 144:149] = 1  # a part of the object that lies outside the first crop
    network, current = session(image)
    current.predict([box(*SMALL)])
    assert current.views[0].crop == CROP
    logits, _ = current.predict([box(*SMALL, (146, 72))])
    x0, y0, x1, y1 = current.views[0].crop
    assert x1 - x0 > 32 and x0 <= 144 and y0 <= 70 and x1 >= SMALL[2] and y1 >= SMALL[3]
    assert network.encoded == [(1, 3, SIDE, SIDE)] * 2
    assert network.asked[-1].mask_prompt is None  # the last mask was of another view
    assert logits[0, 72, 146] > 0 and logits[0, 94, 152] > 0
    current.predict([box(*SMALL, (146, 72), (152, 94))])
    assert len(network.encoded) == 2 and network.asked[-1].mask_prompt is not None


def test_a_click_far_outside_the_crop_brings_back_the_whole_image():
    network, current = session(lopsided(*SMALL))
    current.predict([box(*SMALL)])
    logits, _ = current.predict([box(*SMALL, (5, 5))])
    assert current.views[0].crop is None
    assert network.encoded == [(1, 3, SIDE, SIDE), (1, 3, *SIZE)]
    assert (logits > OUTSIDE_LOGIT).all()
    current.predict([box(*SMALL, (5, 5), (152, 94))])
    assert len(network.encoded) == 2 and network.asked[-1].mask_prompt is not None


class Shrinking(SpyNetwork):
    """A network whose every answer has a few columns less, so that what it found moves to the left."""

    def answer(self, grey, xy, labels):
        mask = super().answer(grey, xy, labels)
        columns = mask.any(0).nonzero().flatten()
        mask[:, columns[len(columns) - 2 * (len(self.asked) - 2) :] if len(self.asked) > 2 else []] = False
        return mask


def test_a_background_click_outside_the_crop_does_not_have_it_encoded_again_each_round():
    network, current = session(picture((1.0, *SMALL), size=SIZE), Shrinking(SIDE, TOLERANCE))
    for count in range(5):
        current.predict([clicks((151, 94), *[(20, 20, BACKGROUND)] * count)])
    assert len(network.encoded) <= 3  # the image, the crop, and at most once more when the click came


def test_objects_small_and_large_share_a_session_and_keep_their_order():
    small = [SMALL, (20, 100, 28, 106)]
    image = torch.stack([lopsided(*patch) for patch in (*small, (60, 10, 140, 70))]).sum(0)
    patches = [small[0], (60, 10, 140, 70), small[1]]
    network, current = session(image)
    prompts = [box(*small[0], (152, 94)), box(*patches[1], (70, 60)), box(*small[1], (22, 104))]
    logits, iou = current.predict(prompts)
    assert [look.crop is None for look in current.views] == [False, True, False]
    assert network.encoded == [(2, 3, SIDE, SIDE), (1, 3, *SIZE)]  # the crops together
    assert [tuple(asked.points.shape[:2]) for asked in network.asked] == [(2, 1), (1, 1)]
    assert logits.shape == (3, *SIZE) and iou.shape == (3,)
    for q in (0, 2):
        assert torch.equal(logits[q] > 0, lopsided(*patches[q])[0, 0] > 0.5)
    assert ((logits[1] > 0) & (lopsided(*patches[1])[0, 0] > 0.5)).sum() > 3000
    for q, prompt in enumerate(prompts):
        assert torch.equal(session(image)[1].predict([prompt])[0][0], logits[q])


@pytest.mark.parametrize("count", [CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_many_small_objects_are_encoded_and_decoded_some_at_a_time(count):
    patches = [(4 + 18 * (q % 10), 4 + 18 * (q // 10), 10 + 18 * (q % 10), 9 + 18 * (q // 10)) for q in range(count)]
    image = torch.stack([lopsided(*patch) for patch in patches]).sum(0)
    network, current = session(image)
    logits, _ = current.predict([box(*patch) for patch in patches])
    assert sum(shape[0] for shape in network.encoded) == count
    assert max(shape[0] for shape in network.encoded) == CHUNK
    assert max(asked.points.shape[0] for asked in network.asked) == CHUNK
    for mask, (x0, y0, x1, y1) in zip(logits, patches):
        own = lopsided(x0, y0, x1, y1)[0, 0] > 0.5
        assert torch.equal(mask[y0:y1, x0:x1] > 0, own[y0:y1, x0:x1])


@pytest.mark.parametrize("crop", [True, False], ids=["crops", "whole"])
def test_objects_of_the_real_network_get_what_each_gets_alone(real, noise, crop):
    def prompts(count):
        return [clicks(*[(40 + i, 30) for i in range(count)]), box(10, 10, 20, 18, (14, 14)), box(50, 5, 120, 80)]

    small = SmallObjectCropper(64, below=16, min_side=16) if crop else None
    together, alone = PromptSession(real, noise, small), [PromptSession(real, noise, small) for _ in range(3)]
    for count in range(1, 5):
        logits, iou = together.predict(prompts(count))
        for q in range(3):
            expected, quality = alone[q].predict(prompts(count)[q : q + 1])
            torch.testing.assert_close(logits[q], expected[0], atol=1e-2, rtol=0)
            torch.testing.assert_close(iou[q], quality[0], atol=1e-3, rtol=0)


def test_more_clicks_on_one_object_than_six_leave_the_others_as_they_are(real, noise):
    one, many = clicks((40, 30)), clicks(*[(70 + i, 60) for i in range(20)])
    expected, _ = PromptSession(real, noise).predict([one])
    logits, _ = PromptSession(real, noise).predict([one, many])
    torch.testing.assert_close(logits[0], expected[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("crop", [True, False], ids=["crops", "whole"])
@pytest.mark.parametrize("one_pixel", [True, False])
def test_forty_clicks_give_masks(real, noise, crop, one_pixel):
    small = SmallObjectCropper(64, below=16, min_side=16) if crop else None
    current, points = PromptSession(real, noise, small), []
    for i in range(40):
        points.append((40, 30, i % 2) if one_pixel else ((37 * i + 11) % 130, (29 * i + 5) % 90, int(i % 3 > 0)))
        logits, iou = current.predict([clicks(*points)])
        assert logits.shape == (1, 90, 130) and logits.isfinite().all() and iou.isfinite().all()


def test_each_object_may_be_answered_by_a_mask_of_its_own():
    image = picture((1.0, *LARGE), size=SIZE)
    _, current = session(image, crop=False, mask_index=[0, 1, 2, 3])
    for _ in range(2):
        logits, iou = current.predict([clicks((50, 50))] * 4)
    assert (logits[0] > 0).all() and not (logits[3] > 0).any()
    assert torch.equal(logits[1] > 0, ~(logits[2] > 0))
    np.testing.assert_allclose(iou, [0.5, 0.1, PREDICTED_IOU, 0.75])


def test_masks_of_their_own_stay_with_objects_that_are_cropped():
    image = torch.stack([lopsided(*SMALL), lopsided(60, 10, 140, 70)]).sum(0)
    _, current = session(image, mask_index=[1, 3, 2])
    logits, iou = current.predict([box(60, 10, 140, 70), box(*SMALL), box(*SMALL)])
    np.testing.assert_allclose(iou, [0.1, 0.75, PREDICTED_IOU])
    assert not (logits[1] > 0).any()
    assert torch.equal(logits[2] > 0, lopsided(*SMALL)[0, 0] > 0.5)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_objects_in_a_later_round_is_refused(count):
    _, current = session(picture(size=SIZE))
    current.predict([clicks((50, 50)), clicks((60, 60))])
    with pytest.raises(ValueError, match=f"the session has 2 objects, got prompts for {count}"):
        current.predict([clicks((50, 50))] * count)


def test_lists_are_as_good_as_arrays():
    image = picture((1.0, *LARGE), size=SIZE)
    expected, _ = session(image)[1].predict([clicks((50, 50), (100, 100, BACKGROUND))])
    found, _ = session(image)[1].predict([([[50, 50], [100, 100]], [1, 0])])
    assert torch.equal(found, expected)


def test_an_image_too_small_for_a_closer_look_is_seen_whole():
    network, current = session(lopsided(20, 20, 24, 24, size=(40, 40)))
    current.predict([box(20, 20, 24, 24)])
    assert network.encoded == [(1, 3, 40, 40)]


# --- going on from a mask


def given(x0, y0, x1, y1):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_mask_that_the_first_prompts_correct_is_shown_to_the_network_once():
    network, current = session(picture((1.0, *LARGE), size=SIZE))
    current.start_from_masks([given(*LARGE)])
    for _ in range(2):
        current.predict([clicks((50, 50))])
    shown = [asked.mask_prompt for asked in network.asked]
    expected = F.interpolate(given(*LARGE)[None, None].float(), [SIDE, SIDE], mode="area")
    torch.testing.assert_close(shown[0][0], 20 * expected - 10)
    assert not torch.equal(shown[1], shown[0])  # its own answer


def test_a_small_given_mask_is_looked_at_closely_at_once():
    network, current = session(lopsided(*SMALL))
    current.start_from_masks([given(*SMALL)])
    current.predict([clicks((152, 94))])
    assert network.encoded == [(1, 3, SIDE, SIDE)]
    assert network.asked[0].mask_prompt.max() == 10


@pytest.mark.parametrize("settings", [{"mask_feedback": False}, {}], ids=["no feedback", "empty mask"])
def test_no_mask_is_shown_where_there_is_none_or_the_network_knows_none(settings):
    network, current = session(picture((1.0, *LARGE), size=SIZE), **settings)
    current.start_from_masks([given(*LARGE) if settings else given(0, 0, 0, 0)])
    current.predict([clicks((50, 50))])
    assert network.asked[0].mask_prompt is None
    assert network.encoded == [(1, 3, *SIZE)]  # looks at the whole image first, as without a mask


def test_a_mask_that_is_cut_by_its_crop_is_looked_at_more_widely():
    image = lopsided(120, 70, 160, 110)
    network, current = session(image)
    current.crop = lambda box, size: CROP  # too narrow: 32 pixels for an object of 40
    logits, _ = current.predict([clicks((145, 105))])
    assert ((logits[0] > 0) != (image[0, 0] > 0.5)).sum() < 60  # enlarging blurs the border of 1,200 pixels
    x0, y0, x1, y1 = current.views[0].crop
    assert x1 - x0 > 32 and x0 < 120 and x1 > 160 and y0 < 70 and y1 > 110
    encoded = len(network.encoded)
    current.predict([clicks((145, 105), (140, 104))])
    assert len(network.encoded) == encoded  # the wider one is kept


def test_an_object_that_is_cut_by_every_crop_is_seen_on_the_whole_image():
    _, current = session(picture((1.0, 0, 0, 192, 128), size=SIZE))
    current.crop = lambda box, size: CROP
    logits, _ = current.predict([clicks((150, 90))])
    assert current.views[0].crop is None and (logits > 0).all()
