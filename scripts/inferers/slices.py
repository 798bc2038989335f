# SPDX-License-Identifier: Apache-2.0
"""What every inferer of slices shares: an image or a volume comes in, slices are answered upright, a mask goes out."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from ..io.axes import slice_axis, upright
from ..io.file_state import file_state
from ..networks.promptable import Promptable
from ..prompts.form import Entry, write_entries
from ..transforms.intensity import ToRGB


class SliceInferer(Inferer, ABC):
    """Answer slices of one image or volume, on its own grid, one after the other.

    A subclass says what is asked on which slice (:meth:`list_entries`), what the answers go into (:meth:`allocate`),
    and answers one slice (:meth:`answer`).

    Args:
        to_rgb: turns a slice (C, X, Y) into RGB in 0..1; nothing takes the image to be that already.
    """

    def __init__(self, to_rgb: Callable | None = None) -> None:
        super().__init__()
        self.to_rgb = to_rgb

    def __call__(self, inputs: Tensor, network: Promptable, *args: Any, **kwargs: Any) -> MetaTensor:
        """Answer one image.

        Args:
            inputs: (1, C, X, Y) or (1, C, X, Y, Z), a MetaTensor where it has a place or prompts.
            network: that answers.

        Returns:
            What :meth:`allocate` made, with the axes of ``inputs``. What was asked and found is in ``meta["prompts"]``.

        Raises:
            ValueError: when several images come at once.
        """
        if inputs.shape[0] != 1:
            raise ValueError(f"one image at a time: got a batch of {inputs.shape[0]}; images differ in size")
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        is_volume = volume.ndim == 5
        if not is_volume:
            volume = volume.unsqueeze(-1)
        entries = self.list_entries(inputs, volume.shape[4])
        output = self.allocate(volume, entries)  # (1, C', X, Y, Z)
        found: list[Entry] = []
        asked, source = self.asked(inputs, entries), source_state(inputs)
        for k in sorted({entry["slice"] for entry in asked}):
            image = upright(self.rgb_slice(inputs, volume[..., k]))  # (1, C, X, Y) -> (1, 3, H, W)
            on_slice = [entry for entry in asked if entry["slice"] == k]
            place = source and (*source, k)
            found += self.answer(inputs, image, on_slice, network, upright(output[0, ..., k]), place)
        result = MetaTensor(output if is_volume else output.squeeze(-1), meta=dict(getattr(inputs, "meta", {})))
        result.is_batch = getattr(inputs, "is_batch", False)
        write_entries(result, self.report(entries, found))
        return result

    @abstractmethod
    def list_entries(self, inputs: Tensor, depth: int) -> list[Entry]:
        """List what is asked of an image of so many slices.

        Args:
            inputs: (1, C, X, Y[, Z]) with its meta.
            depth: number of slices.
        """

    def asked(self, inputs: Tensor, entries: list[Entry]) -> list[Entry]:
        """Choose the entries that ask for something; slices without one are not looked at.

        Args:
            inputs: (1, C, X, Y[, Z]) with its meta.
            entries: all that were listed.
        """
        return entries

    @abstractmethod
    def allocate(self, volume: Tensor, entries: Sequence[Entry]) -> Tensor:
        """Make what the answers go into, (1, C', X, Y, Z), for a volume (1, C, X, Y, Z).

        Args:
            volume: (1, C, X, Y, Z).
            entries: all that were listed.
        """

    @abstractmethod
    def answer(
        self,
        inputs: Tensor,
        image: Tensor,
        entries: list[Entry],
        network: Promptable,
        output: Tensor,
        place: tuple | None,
    ) -> Sequence[Entry]:
        """Answer one slice.

        Args:
            inputs: what came, with its meta.
            image: (1, 3, H, W) RGB in 0..1, or a colour picture's bytes, upright.
            entries: what is asked on it, one at least.
            network: that answers.
            output: (C', H, W), upright, changed in place.
            place: tells the slice and the state of its file from all others; nothing where it comes from no file.

        Returns:
            What was found, an entry each.
        """

    def report(self, entries: list[Entry], found: list[Entry]) -> list[Entry]:
        """Choose what is said of an image, from what was asked and what was found, slice by slice.

        Args:
            entries: all that were listed.
            found: an entry for each answer.
        """
        return found

    def rgb_slice(self, inputs: Tensor, image: Tensor) -> Tensor:
        """Turn one slice (1, C, X, Y) into RGB, scaled as the whole volume is; a colour picture's bytes stay bytes.

        Args:
            inputs: (1, C, X, Y[, Z]) with its meta.
            image: (1, C, X, Y), one slice.
        """
        is_picture = isinstance(self.to_rgb, ToRGB) and inputs.ndim == 4 and self.to_rgb.only_divides(image[0])
        if self.to_rgb is None or is_picture:
            return image
        meta = getattr(inputs, "meta", {})
        meta = {key: meta[key] for key in ("percentiles",) if key in meta}
        return self.to_rgb(MetaTensor(image[0], meta=meta)).as_tensor()[None]


def note_seconds(result: MetaTensor, start: float) -> None:
    """Note in ``meta["seconds"]`` the time since an answer was asked for.

    Args:
        result: of an inferer.
        start: when it began, by ``time.perf_counter``.
    """
    seconds = round(time.perf_counter() - start, 3)
    collated = isinstance(result.meta.get("filename_or_obj"), (list, tuple))
    result.meta["seconds"] = [seconds] if collated else seconds


def source_state(image: Tensor) -> tuple | None:
    """Return the file that a batch of one image comes from, its state, and the axis that its slices lie along.

    None where there is no such file.
    """
    path = getattr(image, "meta", {}).get("filename_or_obj")
    path = path[0] if isinstance(path, (list, tuple)) else path
    try:
        return *file_state(str(path)), slice_axis(image)
    except (OSError, ValueError):
        return None
