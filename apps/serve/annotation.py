# SPDX-License-Identifier: Apache-2.0
"""The object that a client works on in an image, from one interaction to the next."""

import logging
import time
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from apps.common.errors import RequestError
from apps.common.weights import Answering
from scripts.inferers.session import PromptSession
from scripts.inferers.spread import on_slice
from scripts.io.axes import upright
from scripts.prompts.carried import carried_prompt
from scripts.prompts.form import INSIDE, TOP_LEFT, Prompt

from .history import Change, State, difference
from .image import SentImage
from .interactions import Box, Interaction, as_slices, prompt_on

MOST_SECONDS = 40.0  # of an answer: a client waits for a minute; the next one goes on from there
MOST_UNDONE = 16  # interactions that can be taken back

logger = logging.getLogger(__name__)


class Annotation:
    """One image of a client, and the object that it works on.

    Slices that were prompted are answered by the network; beyond them the object is followed through the volume, see
    :class:`scripts.inferers.SpreadInferer`. The slices lie across the axis along which the last box or drawing was
    flat, else across that of the largest spacing.

    Args:
        answering: weights, which stay the same for this image.
        image: (C, A, B, D) with 1 or 3 channels, of any numbers.
        spacing: of the three axes, in millimetres; nothing takes 1.

    Raises:
        RequestError: when the image or its spacing cannot be used.
    """

    def __init__(self, answering: Answering, image: np.ndarray, spacing: Sequence[float] | None = None) -> None:
        if answering.spreading is None:
            raise RequestError("these weights have a mask for each class and answer no object: serve others")
        self.answering = answering
        self.image = SentImage(image, spacing)
        self.shape = self.image.shape
        self.mask = np.zeros(self.shape, np.uint8)
        self.changes: list[Change] = []
        self.state = State(axis=self.image.first_axis())

    @property
    def nbytes(self) -> int:
        """Return the bytes of the image, its mask and the one before."""
        return self.image.nbytes + 2 * self.mask.nbytes

    def reset(self) -> None:
        """Begin another object."""
        self.mask = np.zeros(self.shape, np.uint8)
        self.state, self.changes = State(axis=self.image.first_axis()), []

    def start_from(self, mask: np.ndarray) -> None:
        """Begin another object from a segmentation; it stays where no interaction is.

        Args:
            mask: (A, B, D), positive inside.

        Raises:
            RequestError: when it is not as large as the image.
        """
        if mask.shape != self.shape:
            raise RequestError(f"the segmentation is {list(mask.shape)}, and the image {list(self.shape)}")
        new = (mask > 0).astype(np.uint8)
        before, state = self.mask, self.state
        self.state = State(axis=self.image.first_axis(), given=new > 0, pending=True)
        self.draw(new, before, state)

    def add(self, interaction: Interaction) -> None:
        """Take an interaction in, without answering it.

        Args:
            interaction: on this image.
        """
        before = self.state
        self.state = before.copy()
        axis = interaction.axis
        if axis is not None and min(self.shape) > 1 and axis != self.state.axis:
            self.state.axis, self.state.answers, self.state.sessions = axis, {}, {}  # slices are others now
        self.state.interactions.append(interaction)
        self.state.pending = True
        for k in interaction.slices(self.state.axis):
            self.state.answers.pop(k, None)
            if interaction.mask is not None:
                self.state.sessions.pop(k, None)  # it starts anew from what was drawn
        self.remember(Change(before, None, None))

    def remember(self, change: Change) -> None:
        """Keep a change, so that it can be taken back."""
        self.changes = [*self.changes, change][-MOST_UNDONE:]

    def undo(self) -> tuple[bool, Box | None]:
        """Take the last interaction back.

        Returns:
            Whether there was one, and where the mask has changed.
        """
        if not self.changes:
            return False, None
        change = self.changes.pop()
        self.state = change.state
        if change.place is not None and change.before is not None:
            self.mask = self.mask.copy()
            self.mask[as_slices(change.place)] = change.before
        return True, change.place

    def predict(self, spreads: bool = True) -> tuple[bool, Box | None]:
        """Answer what was said.

        Args:
            spreads: whether the object is followed through the volume; else the prompted slices alone change.

        Returns:
            Whether there was anything to answer, and where the mask has changed.
        """
        if not self.state.pending:
            return False, None
        end = time.monotonic() + MOST_SECONDS
        with torch.inference_mode():
            volume = self.image.volume(self.state.axis)
            prompted = {k for each in self.state.interactions for k in each.slices(self.state.axis)}
            for k in sorted(prompted - set(self.state.answers)):
                self.state.answers[k] = self.answer(volume, k)
            new, complete = self.spread(volume, end) if spreads else (None, True)
        self.state.pending = not complete
        last = self.changes.pop() if self.changes and self.changes[-1].place is None else None
        before = last.state if last else self.state.copy()
        return True, self.draw_answers(before) if new is None else self.draw(new, self.mask, before)

    def draw(self, new: np.ndarray, before: np.ndarray, state: State) -> Box | None:
        """Take a new mask, and keep how it was before.

        Args:
            new: (A, B, D) uint8.
            before: likewise.
            state: before.

        Returns:
            Where they differ.
        """
        self.mask = new
        return self.keep(new, before, state)

    def keep(self, new: np.ndarray, before: np.ndarray, state: State, first: int = 0) -> Box | None:
        """Keep what has changed of the mask, so that it can be taken back.

        Args:
            new: (A, B, D) uint8, the mask or some of its slices.
            before: likewise.
            state: before.
            first: the first of these slices.

        Returns:
            Where the mask has changed.
        """
        place = difference(new, before)
        kept = None if place is None else before[as_slices(place)].copy()
        if place is not None:
            axis = self.state.axis
            low, high = place[axis]
            place = (*place[:axis], (first + low, first + high), *place[axis + 1 :])
        self.remember(Change(state, place, kept))
        return place

    def slices_of(self, array: np.ndarray) -> Tensor:
        """Return a volume (A, B, D) as (X, Y, Z), whose slices lie across the axis of the object, without copying."""
        y, x = (other for other in range(3) if other != self.state.axis)
        return torch.from_numpy(array).permute(x, y, self.state.axis)

    def answer(self, volume: MetaTensor, k: int) -> Tensor:
        """Return the mask (H, W) of a slice, by all that was said of it.

        Args:
            volume: (1, C, X, Y, Z).
            k: the slice.
        """
        inferer, network = self.answering.spreading, self.answering.network
        prompt = prompt_on(self.state.interactions, self.state.axis, k)
        session = self.state.sessions.get(k)
        if session is None:
            before = upright(self.slices_of(self.mask)[..., k]) > 0
            shown = self.with_drawings(before, k)
            if not shown.any() and not np.isin(prompt.labels, [*INSIDE, TOP_LEFT]).any():
                return shown  # the object is not here
            if not len(prompt.labels):
                prompt = carried_prompt(shown.numpy())
            image = upright(inferer.rgb_slice(volume, volume.as_tensor()[..., k]))
            kept = inferer.kept_of(network, (*self.image.source, self.state.axis, k))
            session = PromptSession(network, image, inferer.crop, inferer.mask_feedback, None, kept)
            session.start_from_masks([shown])
            self.state.sessions[k] = session
        session.run([Prompt(prompt.points, prompt.labels)])
        view, logits = session.part(session.views[0])
        return on_slice(view, logits, session.size)

    def with_drawings(self, mask: Tensor, k: int) -> Tensor:
        """Return the mask that the network is shown of a slice: with what was drawn to be of the object, or not.

        Args:
            mask: (H, W) bool, so far.
            k: the slice.
        """
        for each in self.state.interactions:
            if each.mask is None or not each.is_drawn_across(self.state.axis) or k not in each.slices(self.state.axis):
                continue
            if each.include and each.is_line and not mask.any():
                continue  # its points say where the object is
            whole = np.zeros(self.shape, bool)
            whole[as_slices(each.extent)] = each.mask
            drawn = upright(self.slices_of(whole)[..., k])
            mask = mask | drawn if each.include else mask & ~drawn
        return mask

    def draw_answers(self, state: State) -> Box | None:
        """Take the prompted slices as they are answered, and leave the others, which cost nothing then.

        Args:
            state: before.

        Returns:
            Where the mask has changed.
        """
        answers = self.state.answers
        first, end = (min(answers), max(answers) + 1) if answers else (0, 0)
        span = [slice(None)] * 3
        span[self.state.axis] = slice(first, end)
        part = self.mask[tuple(span)]
        before, labels = part.copy(), self.slices_of(part)
        for k, mask in answers.items():
            upright(labels[..., k - first])[:] = mask
        return self.keep(part, before, state, first)

    def spread(self, volume: MetaTensor, end: float) -> tuple[np.ndarray, bool]:
        """Follow the object from the slices that are answered or were given.

        Args:
            volume: (1, C, X, Y, Z).
            end: when to stop, by ``time.monotonic``.

        Returns:
            The mask (A, B, D), and whether it is all there.
        """
        inferer, network, state = self.answering.spreading, self.answering.network, self.state
        anchors = {**self.given_slices(), **state.answers}
        new = np.zeros(self.shape, np.uint8)
        labels = self.slices_of(new)
        for k, mask in anchors.items():
            upright(labels[..., k])[:] = mask
        if not anchors:
            return new, True
        for k, (x0, y0, x1, y1), logits in inferer.follow(volume, network, anchors, (*self.image.source, state.axis)):
            upright(labels[..., k])[y0:y1, x0:x1] = logits > 0
            if time.monotonic() > end:
                logger.warning(
                    "the object is not followed to its end, since the client waits: its next request goes on"
                )
                return new, False
        return new, True

    def given_slices(self) -> dict[int, Tensor]:
        """Return the slices of the segmentation to start from.

        One slice is followed both ways. Several are the object, so that it ends where they end, unless a prompt beyond
        says more.
        """
        if self.state.given is None:
            return {}
        given = self.slices_of(self.state.given)
        there = given.flatten(0, 1).any(0).nonzero().flatten().tolist()
        found = {k: upright(given[..., k]) for k in there}
        said = [k for k, mask in self.state.answers.items() if mask.any()]
        if len(there) > 1:
            for beyond, is_free in (
                (there[0] - 1, min(said, default=there[0]) >= there[0]),
                (there[-1] + 1, max(said, default=0) <= there[-1]),
            ):
                if is_free and 0 <= beyond < given.shape[2]:
                    found[beyond] = torch.zeros_like(upright(given[..., 0]))
        return found
