# SPDX-License-Identifier: Apache-2.0
"""From an image and its label to one slice, upright, with one mask for each object asked for."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from scipy import ndimage
from torch import Tensor

from ..io.axes import upright
from ..io.grids import on_grid_of
from ..io.reading import label_values
from ..prompts.class_layout import ClassLayout
from ..prompts.crops import SmallObjectCropper, mask_box


class UprightSliced(Transform):
    """Take the slice that an item of :class:`scripts.data.ObjectDataset` names, of the image and of its label there.

    Where ``data["neighbours"]`` is set, the label also has the ids of the slice before and of that after it, which are
    0 outside of the volume; :class:`scripts.transforms.RandPreviousSliced` takes them off again.

    Args:
        image_key: (C, X, Y[, Z]) in, (C, H, W) out.
        label_key: (C, X, Y[, Z]) ids in, (1, H, W) int32 out, or (3, H, W) with neighbours; or soft masks of C classes,
            which stay (C, H, W).
    """

    def __init__(self, image_key: str = "image", label_key: str = "label") -> None:
        self.image_key = image_key
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        image = data[self.image_key]
        label = on_grid_of(label_values(data[self.label_key]), image)
        beside = []
        if data.pop("neighbours", False) and label.ndim == 4 and not label.is_floating_point():
            places = (data["slice"] - 1, data["slice"] + 1)
            beside = [label[..., k] if 0 <= k < label.shape[3] else torch.zeros_like(label[..., 0]) for k in places]
        # each may be a volume: a DICOM file has one slice, and its label may be a picture
        image, label = (array[..., data["slice"]] if array.ndim == 4 else array for array in (image, label))
        data[self.image_key] = upright(image)
        data[self.label_key] = upright(torch.cat([label, *beside]) if beside else label)
        return data


class LabelOnImaged(Transform):
    """Bring the label of an item of whole volumes to its image, as :class:`UprightSliced` does for a slice.

    Args:
        image_key: (C, X, Y, Z).
        label_key: (C, X, Y, Z) ids in, (1, X, Y, Z) int32 out, or soft masks of C classes.
    """

    def __init__(self, image_key: str = "image", label_key: str = "label") -> None:
        self.image_key = image_key
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = {key: value for key, value in data.items() if key != "slice"}
        data[self.label_key] = on_grid_of(label_values(data[self.label_key]), data[self.image_key])
        return data


def object_mask(label: Tensor, ids: Sequence[int]) -> Tensor:
    """Return the mask (H, W), or (X, Y, Z) of a volume, of an object.

    Args:
        label: (1, ...) ids, or (C, ...) soft masks of which id i is the i-th.
        ids: that make up the object.

    Returns:
        uint8 of ids, float32 in 0..1 of soft masks.
    """
    if label.is_floating_point():
        return label[[i - 1 for i in ids]].amax(0)
    return torch.isin(label[0], torch.tensor(ids, dtype=label.dtype)).to(torch.uint8)


class ObjectMasksd(Transform):
    """Give each object of an item its mask.

    Args:
        label_key: as :class:`UprightSliced` or :class:`LabelOnImaged` leaves it; becomes (Q, ...), one mask for each
            of ``data["objects"]``.
    """

    def __init__(self, label_key: str = "label") -> None:
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        label, objects = data[self.label_key], data.pop("objects")  # lists of differing lengths do not collate
        data[self.label_key] = torch.stack([object_mask(label, ids) for ids in objects])
        return data


class RandObjectMasksd(Randomizable, Transform):
    """Choose what to ask for at this visit: some objects, now and then on a crop around a small one, or all at once.

    Where ``data["components"]`` is set, an object is one connected part of its mask.

    Args:
        count: objects asked for at most.
        whole_prob: probability of asking for everything that is labelled as one object, by no prompt but the whole
            image; ``data["whole"]`` says so to :class:`scripts.transforms.RandPromptsd`.
        crop: what small objects are, and how they are cropped; nothing never crops.
        crop_prob: probability that a small object is seen on a crop.
        layout: of the classes, where the objects are classes: all of an item are asked for at once, in their order, and
            a crop is around all of them.
        fill: where there are fewer objects than ``count``, ask for some of them again, by other prompts.
        image_key: (3, H, W), cropped together with the label.
        label_key: as :class:`UprightSliced` leaves it; becomes (Q, H, W) with 1 <= Q <= count. Where the item has
            ``before``, the label (1, H, W) of another slice by which the objects are prompted, it becomes (2 Q, H, W):
            their masks, which may be empty, and those of before, and ``carried`` is set. Where it has ``markers``
            (N, H, W), it becomes (1 + N, H, W), of one object.
    """

    CONTEXTS = (0.6, 1.6)  # a crop at prediction follows a mask that may be too small or too large

    def __init__(
        self,
        count: int = 1,
        whole_prob: float = 0.0,
        crop: SmallObjectCropper | None = None,
        crop_prob: float = 0.5,
        layout: ClassLayout | None = None,
        fill: bool = False,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        self.count = count
        self.whole_prob = whole_prob
        self.crop = crop
        self.crop_prob = crop_prob
        self.layout = layout
        self.fill = fill
        self.image_key = image_key
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        objects, components = data.pop("objects"), data.pop("components", False)
        label = data[self.label_key]
        before, markers = data.pop("before", None), data.pop("markers", None)
        seen = label if before is None else before  # what tells of the objects
        objects = objects or [[i] for i in label.unique().tolist() if i > 0]  # of a label that was made
        data["whole"] = bool(self.R.rand() < self.whole_prob) and before is None and markers is None
        everything = sorted({i for ids in objects for i in ids})
        if data["whole"] and self.layout is None:
            data[self.label_key] = object_mask(label, everything)[None]
            return data

        first = everything if self.layout else objects[self.R.randint(len(objects))]
        mask = object_mask(seen, first)
        if components:
            mask = self.choose_component(mask)
        window = None if data["whole"] else self.choose_crop(np.asarray(mask) > 0.5)
        if window is not None:
            x0, y0, x1, y1 = window
            data[self.image_key] = data[self.image_key][:, y0:y1, x0:x1]
            label, seen, mask = label[:, y0:y1, x0:x1], seen[:, y0:y1, x0:x1], mask[y0:y1, x0:x1]
            markers = None if markers is None else markers[:, y0:y1, x0:x1]
        if markers is not None:
            data[self.label_key] = torch.cat([mask[None], markers.to(mask)])
            return data
        masks, chosen = [object_mask(label, ids) for ids in objects] if self.layout else [mask], [first]
        for index in [] if self.layout else self.R.permutation(len(objects)):
            if len(masks) == self.count:
                break
            mask = object_mask(seen, objects[index])
            if objects[index] is not first and (mask > 0.5).any():
                masks.append(self.choose_component(mask) if components else mask)
                chosen.append(objects[index])
        if before is not None:
            masks, data["carried"] = [object_mask(label, ids) for ids in chosen] + masks, True
        elif self.fill and self.layout is None:
            masks = [masks[q % len(masks)] for q in range(self.count)]
        data[self.label_key] = torch.stack(masks)
        return data

    def choose_component(self, mask: Tensor) -> Tensor:
        """Choose one connected part of a (H, W) mask, a larger one more often."""
        parts, _ = ndimage.label(np.asarray(mask) > 0.5)
        pixels = parts[parts > 0]
        return mask * torch.from_numpy(parts == pixels[self.R.randint(len(pixels))]) if len(pixels) else mask

    def choose_crop(self, mask: np.ndarray) -> tuple[int, int, int, int] | None:
        """Choose a crop around a (H, W) mask, off its middle by up to a quarter of the object, or none."""
        box = mask_box(mask)
        if self.crop is None or box is None or self.R.rand() >= self.crop_prob:
            return None
        shift = self.R.uniform(-0.25, 0.25, 2) * (box[2] - box[0] + 1, box[3] - box[1] + 1)
        moved = tuple(np.array(box) + np.tile(shift, 2))
        return self.crop(moved, mask.shape, self.crop.context * self.R.uniform(*self.CONTEXTS))
