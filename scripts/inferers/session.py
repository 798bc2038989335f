# SPDX-License-Identifier: Apache-2.0
"""The objects of one image, round after round: encode what must be seen once, decode once per click."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..networks.promptable import Promptable, given_logits
from ..prompts.crops import Box, Crop, SmallObjectCropper, box_around, contains, expand_crop, mask_box
from ..prompts.form import BACKGROUND, BOTTOM_RIGHT, INSIDE, PADDING, TOP_LEFT, Prompt, pad_prompts

OUTSIDE_LOGIT = -100.0  # logit outside the part of the image that was looked at
LARGE = 2**22  # pixels of an image that is not held as floats
CHUNK = 16  # crops encoded, or objects decoded, at a time


@dataclass
class ObjectView:
    """How an object was last looked at."""

    crop: Crop | None = None  # None is the whole image
    low: Tensor | None = None  # (1, 4T, 4T) logits of the round before
    iou: float = 0.0


class PromptSession:
    """Predict Q objects of one image from prompts that grow from round to round.

    An object that is small on the network's grid, by its box or by the first mask, is predicted again on a crop around
    it, which is encoded once and kept; a click outside the crop widens the view.

    Args:
        network: an EfficientSAM.
        image: (1, 3, H, W), RGB in 0..1, upright; or the bytes of a picture, which take a quarter of the memory.
        crop: what small objects are; nothing never crops.
        mask_feedback: whether the network is shown its mask of the round before.
        mask_index: which of the network's four masks answers each object, where each has a meaning of its own; nothing
            takes the one that the network believes to be best.
        embedding_cache: embeddings of this image by crop, None being the whole of it, which another session may have
            filled; what this one encodes is added.
    """

    def __init__(
        self,
        network: Promptable,
        image: Tensor,
        crop: SmallObjectCropper | None = None,
        mask_feedback: bool = True,
        mask_index: Sequence[int] | None = None,
        embedding_cache: dict[Crop | None, Tensor] | None = None,
    ) -> None:
        self.network = network
        self.mask_index = mask_index
        self.image = image
        self.size = (image.shape[2], image.shape[3])
        self.crop = crop
        self.mask_feedback = mask_feedback
        self.embedding_cache = {} if embedding_cache is None else embedding_cache
        self.views: list[ObjectView] = []
        self.previous: list[Tensor] = []
        self.upscaled: tuple[Tensor | None, Tensor] | None = None  # of the last extent that was found: mask, its logits

    def start_from_masks(self, masks: Sequence[Tensor]) -> None:
        """Start from masks that the first prompts correct, where the network is shown masks at all.

        Args:
            masks: (H, W) bool of each object; an empty one says nothing.
        """
        self.previous = [mask.to(self.image.device) for mask in masks]

    def predict(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        """Predict each object from all its points so far.

        Args:
            prompts: points (N, 2), (x, y) in pixels of the image, and labels (N) of each object; the objects are the
                same, in the same order, from round to round.

        Returns:
            Logits (Q, H, W), -100 outside the crop that an object was seen on, and predicted IoU (Q).
        """
        self.run(prompts)
        logits = torch.stack([self.paste(view) for view in self.views])
        return logits, torch.tensor([view.iou for view in self.views], device=logits.device)

    def run(self, prompts: Sequence[Prompt]) -> None:
        """Predict as :meth:`predict` does, and leave each object's answer where :meth:`part` finds it."""
        first = not self.views
        if first:
            self.views = [ObjectView() for _ in prompts]
            if self.previous and self.mask_feedback:
                self.views = [ObjectView(low=self.as_logits(mask)) for mask in self.previous]
        if len(prompts) != len(self.views):
            raise ValueError(f"the session has {len(self.views)} objects, got prompts for {len(prompts)}")
        prompts = [Prompt(np.asarray(xy, np.float32).reshape(-1, 2), np.asarray(labels)) for xy, labels in prompts]
        everything = list(range(len(prompts)))
        if self.crop is not None:
            given = [q for q in everything if first and self.views[q].low is not None]  # a mask tells its size
            self.choose_crops([q for q in everything if q in given or self.needs_new_crop(q, prompts[q])], prompts)
            for q in given:
                if self.views[q].crop is not None:
                    self.views[q].low = self.as_logits(self.previous[q], self.views[q].crop)
        self.decode(everything, prompts)
        if self.crop is not None and first:  # now there is a mask to tell an object's size
            small = [q for q in everything if self.views[q].crop is None]
            self.choose_crops(small, prompts)
            self.decode([q for q in small if self.views[q].crop is not None], prompts)
        if self.crop is not None:
            self.widen(everything, prompts)

    def widen(self, objects: Sequence[int], prompts: Sequence[Prompt]) -> None:
        """Look again, more widely, at objects whose masks reach the border of their crop, until none does.

        Args:
            objects: their indices.
            prompts: of all objects.
        """
        while cut := {q: crop for q in objects if (crop := self.views[q].crop) and self.is_cut(self.views[q])}:
            for q, crop in cut.items():
                self.views[q] = ObjectView(expand_crop(crop, self.size))
            self.encode_crops(list(cut))
            self.decode(list(cut), prompts)

    def is_cut(self, view: ObjectView) -> bool:
        """Return whether a mask reaches the border of its crop where the image goes on."""
        if view.crop is None or view.low is None:
            return False
        (x0, y0, x1, y1), mask = view.crop, view.low[0] > 0
        sides = (
            (x0 > 0, mask[:, 0]),
            (y0 > 0, mask[0]),
            (x1 < self.size[1], mask[:, -1]),
            (y1 < self.size[0], mask[-1]),
        )
        return any(goes_on and bool(edge.any()) for goes_on, edge in sides)

    def part(self, view: ObjectView) -> tuple[Crop, Tensor]:
        """Return the window that an object was last seen on, and its logits there (h, w)."""
        assert view.low is not None, "run before you ask"
        x0, y0, x1, y1 = window = view.crop or (0, 0, *self.size[::-1])
        known, self.upscaled = self.upscaled, None  # not longer than it is of use: the image may be large
        if known is not None and known[0] is view.low:
            return window, known[1]
        return window, self.network.upscale(view.low.float(), (y1 - y0, x1 - x0))[0]

    def as_logits(self, mask: Tensor, crop: Crop | None = None) -> Tensor | None:
        """Turn a mask (H, W), or a crop of it, into what the network is shown, (1, 4T, 4T); an empty one is nothing.

        Args:
            mask: (H, W).
            crop: (x0, y0, x1, y1), or nothing for the whole image.
        """
        x0, y0, x1, y1 = crop or (0, 0, *self.size[::-1])
        seen = mask[y0:y1, x0:x1]
        return given_logits(self.network, seen[None, None].float())[0] if bool(seen.any()) else None

    def needs_new_crop(self, q: int, prompt: Prompt) -> bool:
        """Return whether the object has a box before its first view, or a part outside the crop that it is seen on.

        Args:
            q: index of the object.
            prompt: of the object.
        """
        view, (xy, labels) = self.views[q], prompt
        if view.low is None:
            return bool((labels == TOP_LEFT).any())
        return view.crop is not None and not all(contains(view.crop, point) for point in xy[np.isin(labels, INSIDE)])

    def choose_crops(self, objects: Sequence[int], prompts: Sequence[Prompt]) -> None:
        """Choose each object's crop, if it is small, and encode what has not been seen.

        Args:
            objects: their indices.
            prompts: of all objects.
        """
        chosen = []
        for q in objects:
            box = self.extent(q, prompts[q])
            crop = None if box is None or self.crop is None else self.crop(box, self.size)
            if crop != self.views[q].crop:
                self.views[q] = ObjectView(crop)
                chosen += [q] * (crop is not None)
        self.encode_crops(chosen)

    def encode_crops(self, objects: Sequence[int]) -> None:
        """Encode the crops of objects that have not been seen."""
        windows = list(
            dict.fromkeys(crop for q in objects if (crop := self.views[q].crop) not in self.embedding_cache and crop)
        )
        for start in range(0, len(windows), CHUNK):
            part = windows[start : start + CHUNK]
            crops = [self.network.resize(as_rgb(self.image[:, :, y0:y1, x0:x1])) for x0, y0, x1, y1 in part]
            self.embedding_cache.update(zip(part, self.network.encode_image(torch.cat(crops)).split(1)))

    def extent(self, q: int, prompt: Prompt) -> Box | None:
        """Return the box around all that is known of an object: its box, its last mask and its foreground clicks.

        Args:
            q: index of the object.
            prompt: of the object.
        """
        xy, labels = prompt
        clicks = [(x, y, x, y) for x, y in xy[np.isin(labels, INSIDE)].tolist()]
        corners = [
            tuple(xy[labels == label][0].tolist()) for label in (TOP_LEFT, BOTTOM_RIGHT) if (labels == label).any()
        ]
        boxes = [corners[0] + corners[1]] if len(corners) == 2 else []
        view = self.views[q]
        if not boxes and view.low is not None:
            (left, top, _, _), logits = self.part(view)
            self.upscaled = (view.low, logits)
            seen = mask_box((logits > 0).cpu().numpy())
            boxes = [(seen[0] + left, seen[1] + top, seen[2] + left, seen[3] + top)] if seen else []
        return box_around(boxes + clicks) if boxes + clicks else None

    def whole(self) -> Tensor:
        """Return the image for the network, which resizes it: a large one's channels one by one, to spare memory."""
        if self.image.dtype != torch.uint8 or self.size[0] * self.size[1] < LARGE:
            return as_rgb(self.image)
        return torch.cat([self.network.resize(as_rgb(channel)) for channel in self.image.split(1, dim=1)], dim=1)

    def decode(self, objects: Sequence[int], prompts: Sequence[Prompt]) -> None:
        """Decode objects, those together that share an image embedding or have one each.

        Args:
            objects: their indices.
            prompts: of all objects.
        """
        groups: dict[tuple[bool, bool, int], list[int]] = {}
        for q in objects:
            view = self.views[q]
            # padding beyond the network's own takes part in attention and would change the answer
            slots = max(len(prompts[q][1]), self.network.num_slots)
            groups.setdefault((view.crop is not None, view.low is not None and self.mask_feedback, slots), []).append(q)
        for (on_crop, has_mask, _), group in groups.items():
            for start in range(0, len(group), CHUNK):
                self.decode_group(group[start : start + CHUNK], prompts, on_crop, has_mask)

    def decode_group(self, group: list[int], prompts: Sequence[Prompt], on_crop: bool, has_mask: bool) -> None:
        """Decode objects whose prompts have as many points, all seen on crops or all on the whole image.

        Args:
            group: indices of objects whose prompts have as many points.
            prompts: of all objects.
            on_crop: whether they are seen on crops.
            has_mask: whether a mask goes in with the points.
        """
        views = [self.views[q] for q in group]
        placed = [self.on_crop(view.crop, prompts[q]) for q, view in zip(group, views)]
        points, labels = (torch.from_numpy(array).to(self.image.device) for array in pad_prompts(placed))
        masks = torch.stack([view.low for view in views if view.low is not None]) if has_mask else None  # (n, 1, h, w)
        index = None if self.mask_index is None else torch.tensor([self.mask_index[q] for q in group]).to(points.device)
        axis = 1 if on_crop else 0  # (n, 1, ...): an image each, or (1, n, ...): one image
        if on_crop:
            embeddings = torch.cat([self.embedding_cache[view.crop] for view in views])
        else:
            if None not in self.embedding_cache:
                self.embedding_cache[None] = self.network.encode_image(self.whole())
            embeddings = self.embedding_cache[None]
        low, iou = self.network.decode_best(
            embeddings,
            points.unsqueeze(axis),
            labels.unsqueeze(axis),
            (self.network.image_size, self.network.image_size) if on_crop else self.size,
            None if masks is None else masks.unsqueeze(axis),
            None if index is None else index.unsqueeze(axis),
        )
        for q, mask, quality in zip(group, low.flatten(0, 1), iou.flatten().tolist()):
            self.views[q].low, self.views[q].iou = mask, quality

    def on_crop(self, crop: Crop | None, prompt: Prompt) -> Prompt:
        """Bring a prompt from pixels of the image to those of a crop, if any, that has the network's size.

        Args:
            crop: (x0, y0, x1, y1), or nothing for the whole image.
            prompt: of the object.
        """
        xy, labels = prompt
        if crop is None:
            return prompt
        x0, y0, x1, y1 = crop
        # a background click outside a crop says nothing about it
        labels = np.where(
            [label == BACKGROUND and not contains(crop, p) for p, label in zip(xy, labels)], PADDING, labels
        )
        placed = torch.from_numpy(xy - (x0, y0)), torch.from_numpy(labels)
        return Prompt(self.network.to_network(*placed, (y1 - y0, x1 - x0)).numpy().astype(np.float32), labels)

    def paste(self, view: ObjectView) -> Tensor:
        """Bring an object's last logits to the image's grid, (H, W)."""
        (x0, y0, x1, y1), part = self.part(view)
        if view.crop is None:
            return part
        logits = torch.full(self.size, OUTSIDE_LOGIT, device=part.device)
        logits[y0:y1, x0:x1] = part
        return logits


def as_rgb(image: Tensor) -> Tensor:
    """Turn bytes into numbers in 0..1, as :class:`scripts.transforms.ToRGB` does; others are that already."""
    return image.contiguous().float() / 255 if image.dtype == torch.uint8 else image
