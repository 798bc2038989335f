# SPDX-License-Identifier: Apache-2.0
"""Transforms that MONAI lacks: checked reading, object selection, prompts, saving of predictions."""

from ..data.reading import LoadFiled, ToRGBd
from .label_map import LabelMapd
from .objects import ObjectMasksd, RandObjectMasksd, UprightSliced
from .request_prompts import RequestPromptsd
from .simulated_prompts import CasePromptsd, RandPromptsd

__all__ = [
    "CasePromptsd",
    "LabelMapd",
    "LoadFiled",
    "ObjectMasksd",
    "RandObjectMasksd",
    "RandPromptsd",
    "RequestPromptsd",
    "ToRGBd",
    "UprightSliced",
]
