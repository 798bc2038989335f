# SPDX-License-Identifier: Apache-2.0
"""Prompts at the door: what a request, a list or the command line says, in the bundle's one form."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform

from ..errors import InputError
from ..prompts.form import PREVIOUS_KEY, asks, read_prompts, write_entries
from .label_requests import is_request, read_request

logger = logging.getLogger(__name__)


class RequestPromptsd(Transform):
    """Validate the prompts for an image and send them along with it.

    An item's own ``points``, ``boxes`` and ``slice`` go before the ones given here. See
    :func:`scripts.prompts.form.read_prompts` for their form. They are stored as JSON text in ``meta["prompts"]`` of the
    image, which survives collation. An item with ``foreground``, ``background`` or ``roi`` is a request of MONAI Label
    (:func:`scripts.transforms.label_requests.read_request`), and nothing else speaks for it.

    Args:
        image_key: of the (C, X, Y[, Z]) image.
        points: for images whose item has no prompts.
        boxes: for images whose item has no prompts.
        slice_index: the slice of a volume that prompts are on where neither they nor the item name one.
        whole_image: whether an image without points and boxes is asked for as a whole; else it needs a mask.

    Raises:
        InputError: when a prompt cannot be meant, or nothing says where an object is.
    """

    def __init__(
        self,
        image_key: str = "image",
        points: Sequence | None = None,
        boxes: Sequence | None = None,
        slice_index: int | None = None,
        whole_image: bool = True,
    ) -> None:
        self.image_key = image_key
        self.points = points
        self.boxes = boxes
        self.slice_index = slice_index
        self.whole_image = whole_image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        image = data[self.image_key]
        shape = [int(n) for n in image.shape[1:]]
        name = str(image.meta.get("filename_or_obj", "the image"))
        if is_request(data):
            entries = read_request(data, shape)
            if name.lower().endswith((".jpg", ".jpeg")):  # a mask would be written as the image is, and spoilt
                data["result_extension"] = data.get("result_extension") or ".png"
        else:
            points, boxes, k = (data.pop(key, None) for key in ("points", "boxes", "slice"))
            if points is None and boxes is None:
                points, boxes = self.points, self.boxes
            entries = []
            if self.whole_image or points or boxes:
                entries = read_prompts(points, boxes, shape, self.slice_index if k is None else k, name)
            elif PREVIOUS_KEY not in image.meta:
                raise InputError(
                    f"nothing says where an object of {name} is: give --points or --boxes, or a --mask of some slices"
                )
            alone = {entry["object"] for entry in entries if not asks(entry)}
            if not self.whole_image:  # where an object spreads, they say on a slice that it has ended
                alone -= {entry["object"] for entry in entries if asks(entry)}
            if PREVIOUS_KEY not in image.meta and alone:
                logger.warning(f"{name}: background clicks alone ask for nothing: give a click on the object, or a box")
        # not written into the image that came: the loader may keep it for the next item
        data[self.image_key] = MetaTensor(image, meta=dict(image.meta))
        write_entries(data[self.image_key], entries)
        return data
