# SPDX-License-Identifier: Apache-2.0
"""Transforms that MONAI lacks: checked reading, intensities, masks of objects, prompts."""

from ..io.reading import LoadCheckedImaged
from .intensity import ToRGB, ToRGBd
from .merge_logits import MergeLogitsd
from .object_masks import LabelOnImaged, ObjectMasksd, RandObjectMasksd, UprightSliced
from .previous_mask import PreviousMaskd
from .previous_slice import RandPreviousSliced
from .recorded_prompts import RandRecordedPromptsd
from .request_prompts import RequestPromptsd
from .simulated_prompts import RandPromptsd, SeededPromptsd
from .slice_axis import SliceAxisd

__all__ = [
    "LabelOnImaged",
    "LoadCheckedImaged",
    "MergeLogitsd",
    "ObjectMasksd",
    "PreviousMaskd",
    "RandObjectMasksd",
    "RandPreviousSliced",
    "RandPromptsd",
    "RandRecordedPromptsd",
    "RequestPromptsd",
    "SeededPromptsd",
    "SliceAxisd",
    "ToRGB",
    "ToRGBd",
    "UprightSliced",
]
