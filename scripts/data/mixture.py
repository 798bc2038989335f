# SPDX-License-Identifier: Apache-2.0
"""Several data sets as one, each as often as it is worth."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io.pictures import PICTURE_SUFFIXES
from .datalists import find_datalist
from .listing import Datalist, Pair
from .made import MadePicture
from .superpixels import Superpixels

KEYS = {"dataset_dir", "weight", "name", "classes", "intensity_range", "components", "superpixels"}
MADE_KEYS = {"made", "weight", "name"}


def mixture_datalist(
    mixture: Sequence[Mapping[str, Any] | str] | str | None,
    cache_dir: str,
    val_images: int,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Datalist:
    """List the images of several data sets, each with what is particular to its set.

    Args:
        mixture: for each set ``dataset_dir``, and optionally ``name`` (the folder's), ``weight`` (share of what is
            trained, 1), ``classes`` and ``intensity_range`` as for a single set, ``components`` (whether each connected
            part of a label id is an object of its own) and ``superpixels`` (share of the set's items whose objects are
            superpixels of the picture). A path stands for a set that has nothing of its own. ``{"made": n}`` stands for
            n pictures that are drawn while training runs.
        cache_dir: where the sample is kept, which a ``dataset_dir`` of null is.
        val_images: how many images of each set validate at most; the same each time.
        val_fraction: share that validates of sets without a split of their own.
        seed: of that split, of what is drawn, and of superpixels.

    Raises:
        InputError: when the mixture is empty, has a key that is not known, names a set twice or has a bad weight.
    """
    given = [mixture] if isinstance(mixture, str) else mixture or []
    parts = [{"dataset_dir": part} if isinstance(part, str) else part for part in given]
    check_mixture(parts)
    lists: Datalist = {"training": [], "validation": []}
    for part in parts:
        if "made" in part:
            name = set_name(part)
            drawn = [(MadePicture(seed, i), MadePicture(seed, i, label=True)) for i in range(int(part["made"]))]
            lists["training"] += [{"image": image, "label": label, "set": name} for image, label in drawn]
            continue
        own = {key: part[key] for key in ("classes", "intensity_range", "components") if part.get(key) is not None}
        found = find_datalist(part["dataset_dir"], cache_dir, val_fraction, seed)
        order = np.random.RandomState(seed).permutation(len(found["validation"]))
        own["set"] = set_name(part)
        lists["training"] += [{**pair, **own} for pair in found["training"]]
        if part.get("superpixels"):
            lists["training"] += [superpixel_pair(pair, own["set"], seed) for pair in found["training"]]
        lists["validation"] += [{**found["validation"][i], **own} for i in order[:val_images]]
    return lists


def superpixel_pair(pair: Pair, name: str, seed: int) -> Pair:
    """Return a picture with its superpixels in the place of its label.

    Args:
        pair: of the picture.
        name: of its set.
        seed: of the superpixels.

    Raises:
        InputError: when it is no picture.
    """
    if not str(pair["image"]).lower().endswith(PICTURE_SUFFIXES):
        raise InputError(f"superpixels are of pictures, and {pair['image']} is none: leave them out for {name}")
    return {"image": pair["image"], "label": Superpixels(pair["image"], seed), "set": superpixel_set(name)}


def superpixel_set(name: str) -> str:
    """Name the superpixels of a set."""
    return f"{name}, superpixels"


def check_mixture(mixture: Sequence[Mapping[str, Any]] | None) -> None:
    """Refuse a mixture that is empty, has a key that is not known, names a set twice or has a bad weight.

    Raises:
        InputError: when it does.
    """
    if not mixture:
        raise InputError("give the data sets to pretrain on: mixture is a list of {dataset_dir: ..., weight: ...}")
    names: list[str] = []
    for part in mixture:
        made = "made" in part
        if set(part) - (MADE_KEYS if made else KEYS) or not (made or "dataset_dir" in part):
            raise InputError(
                f"a part of the mixture has dataset_dir and any of {sorted(KEYS)}, or made, the number of drawn "
                f"pictures, got {dict(part)}"
            )
        if made and not (type(part["made"]) is int and part["made"] > 0):
            raise InputError(f"made is a number of pictures, at least 1, got {part['made']!r}")
        if not 0 <= part.get("superpixels", 0) < 1:
            raise InputError(f"superpixels is a share below 1, got {part['superpixels']}")
        names.append(set_name(part))
        if names.count(names[-1]) > 1:
            raise InputError(f"two parts of the mixture are called {names[-1]}: give one a name")
        if not part.get("weight", 1) > 0:
            raise InputError(f"the weight of {names[-1]} in the mixture is above 0, got {part['weight']}")


def set_name(part: Mapping[str, Any]) -> str:
    """Name a part of a mixture."""
    if "made" in part:
        return str(part.get("name") or "made")
    return str(part.get("name") or Path(part["dataset_dir"] or "sample").resolve().name)


def mixture_weights(items: Sequence[Pair], mixture: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return each item's probability of being drawn: its set's share, divided among the set's items.

    Args:
        items: of a data set whose pairs come from :func:`mixture_datalist`.
        mixture: as there.
    """
    weights = {}
    for part in mixture:
        weight, share = float(part.get("weight", 1)), float(part.get("superpixels", 0))
        weights[set_name(part)] = weight * (1 - share)
        if share:
            weights[superpixel_set(set_name(part))] = weight * share
    counts = Counter(item["set"] for item in items)
    total = sum(weight for name, weight in weights.items() if counts[name])
    return [weights[item["set"]] / counts[item["set"]] / total for item in items]
