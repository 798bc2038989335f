# SPDX-License-Identifier: Apache-2.0
"""Images that training sees again: some views of each, kept as what the frozen part of the network makes of them."""

import hashlib
import logging
import os
import shutil
import zlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import Compose
from torch import Tensor

from ..errors import InputError
from ..io.file_state import file_state
from ..io.whole_files import written_whole
from ..networks.prefix import FrozenPrefix
from ..transforms import RandPromptsd
from .object_dataset import ObjectDataset

logger = logging.getLogger(__name__)

GIGABYTE = 10**9


class CachedViews(Dataset):
    """Give each item in one of some views, drawn anew at each visit.

    A view is an image with its objects, crop and augmentations, which are the same whenever it is seen; prompts are
    drawn anew. What the frozen part of the network makes of its image is kept on disk, in half precision, until a file,
    the weights, the size or a transform changes.

    Args:
        dataset: whose transform has a :class:`scripts.transforms.RandPromptsd`; what comes before is of the view.
        count: views of an item.
        prefix: the frozen part of the network. Where it runs on CUDA, items are loaded by the training's own process.
        cache_dir: where views are kept, in ``views``.
        most_bytes: of all that is kept there, also by other runs, whose views go first; what has no room is made anew.
        num_workers: processes that load items.

    Raises:
        InputError: when these cannot run the network.
    """

    def __init__(
        self,
        dataset: ObjectDataset,
        count: int,
        prefix: FrozenPrefix,
        cache_dir: str | Path,
        most_bytes: float = 20 * GIGABYTE,
        num_workers: int = 0,
    ) -> None:
        transforms = dataset.transform.flatten().transforms
        first = next(i for i, each in enumerate(transforms) if isinstance(each, RandPromptsd))
        super().__init__(dataset.data)
        self.of_view, self.after = Compose(transforms[:first]), Compose(transforms[first:])
        self.count = count
        self.prefix = prefix
        self.device = next(prefix.network.parameters()).device
        if num_workers and self.device.type == "cuda":
            raise InputError("cached_views on CUDA loads in the training's own process: give num_workers 0")
        made_of = f"{prefix.fingerprint()} {describe(self.of_view.transforms)}"
        self.folder = Path(cache_dir) / "views" / hashlib.sha256(made_of.encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.most_bytes = most_bytes
        self.nbytes = make_room(self.folder, most_bytes)
        logger.info(
            f"{count} views of each image are seen, and kept after {prefix.depth} frozen stages of the image encoder: "
            f"{self.folder} has {self.nbytes / GIGABYTE:.2f} of at most {most_bytes / GIGABYTE:.0f} GB"
        )

    def _transform(self, index: int) -> Any:
        item, view = self.data[index], int(torch.randint(self.count, ()))
        name = f"{states_of(item)} {item['case']} {view}"
        path = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.pt"
        kept = read_view(path)
        if kept is None:
            kept = self.make(item, zlib.crc32(f"{item['case']} {view}".encode()))
            if self.nbytes < self.most_bytes:
                with written_whole(path) as unfinished:
                    torch.save(kept, unfinished)
                self.nbytes += path.stat().st_size
        return self.after(unpack(kept))

    def make(self, item: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Make a view.

        Args:
            item: of the data set.
            seed: of all that is random in it.
        """
        self.of_view.set_random_state(seed)
        view = self.of_view(dict(item))
        image = torch.as_tensor(np.asarray(view["image"])).to(self.device)
        features = self.prefix.start(image.float()[None])[0].half().cpu()
        return pack({**view, "image": features})


def pack(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return a view as it is kept: masks in bits.

    Args:
        view: whose ``label`` (Q, H, W) holds masks.
    """
    masks = np.greater(np.asarray(view["label"]), 0.5)
    bits = torch.from_numpy(np.packbits(masks))
    return {**view, "label": {"bits": bits, "shape": list(masks.shape)}}


def unpack(view: Mapping[str, Any]) -> dict[str, Any]:
    """Return a view as transforms know it; see :func:`pack`."""
    shape = view["label"]["shape"]
    masks = np.unpackbits(view["label"]["bits"].numpy(), count=int(np.prod(shape))).reshape(shape)
    return {**view, "label": torch.from_numpy(masks)}


def read_view(path: Path) -> dict[str, Any] | None:
    """Read a view, or nothing where there is none that can be read.

    Args:
        path: of its file.
    """
    try:
        return torch.load(path, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:  # torch raises half a dozen kinds for a file that was cut short
        logger.warning(f"{path} is broken: the view is made again")
        return None


def states_of(item: Mapping[str, Any]) -> str:
    """Return what changes when a file of an item does.

    Raises:
        InputError: when the image or label is made, and no file.
    """
    paths = [item["image"], item["label"]]
    if any(callable(each) for each in paths):
        raise InputError("cached_views keeps views of files, and this data set has images or labels that are made")
    flat = [each for path in paths for each in (np.ravel(path).tolist() if isinstance(path, (list, tuple)) else [path])]
    return str([file_state(path) for path in flat])


def make_room(folder: Path, most_bytes: float) -> int:
    """Remove the views of other runs, the oldest first, until half of the room is free, and return the bytes left.

    Args:
        folder: of the views that stay.
        most_bytes: of all views.
    """
    sizes = {each: sum(file.stat().st_size for file in each.iterdir()) for each in folder.parent.iterdir()}
    os.utime(folder)
    for other in sorted(sizes, key=lambda each: each.stat().st_mtime):
        if other != folder and sum(sizes.values()) > most_bytes / 2:
            shutil.rmtree(other, ignore_errors=True)
            del sizes[other]
    return sum(sizes.values())


def describe(value: Any) -> str:
    """Describe transforms by all that tells one from another, the same in every run.

    Args:
        value: a transform, or what it holds.
    """
    if isinstance(value, (np.ndarray, Tensor)):
        return str(np.asarray(value).tolist())
    if isinstance(value, Mapping):
        return str([(describe(key), describe(each)) for key, each in value.items()])
    if isinstance(value, (list, tuple)):
        return str([describe(each) for each in value])
    if isinstance(value, FunctionType):
        return f"{value.__qualname__} {describe(value.__code__)} {describe(value.__defaults__)}"
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {describe(value.co_consts)}"
    if isinstance(value, np.random.RandomState):
        return "random numbers"
    if hasattr(value, "__dict__") and not isinstance(value, (type, Enum)):
        return f"{type(value).__qualname__} {describe(vars(value))}"
    return str(value)
