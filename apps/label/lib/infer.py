# SPDX-License-Identifier: Apache-2.0
"""Clicks and a box on one slice (dimension 2) or on several (dimension 3), answered by the best weights there are."""

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.transform.post import Restored
from monailabel.transform.writer import write_itk

from apps.common.errors import RequestError
from apps.common.kept import Kept
from apps.common.weights import BEST, BUNDLE, Served, find_weights, offered
from scripts.io.file_state import file_state
from scripts.io.nifti import affine_in_itk, is_nifti
from scripts.transforms import LoadCheckedImaged, RequestPromptsd

from .checks import CLICKED, WHOLE, WRITTEN
from .listing import suffix_of

MOST_VOLUMES = 2**30  # bytes of images in memory
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha")  # that keep where they lie
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text())


class KeptImaged(LoadCheckedImaged):
    """Load the images of requests, and keep the last ones: readers go to and fro between them."""

    def __init__(self) -> None:
        super().__init__("image")
        self.kept: Kept[MetaTensor] = Kept(MOST_VOLUMES, lambda image: image.nbytes)

    def load(self, path: Path) -> MetaTensor:
        if not path.exists():
            return super().load(path)  # says so
        return self.kept.get(file_state(path), lambda: super(KeptImaged, self).load(path))


class PromptedInfer(BasicInferTask):
    """One object for each request, from clicks on and beside it and a box.

    Args:
        served: weights, shared with other dimensions.
        images: that loads, shared too.
        conf: options of the command line; ``labels`` are names, parted by commas.
        dimension: 2 answers on the slice that a client shows, 3 on every prompted slice, or for whole objects where a
            client chooses so.
    """

    def __init__(self, served: Served, images: KeptImaged, conf: dict[str, str], dimension: int) -> None:
        names = METADATA["network_data_format"]["outputs"]["pred"]["channel_def"]
        labels = {name: int(i) for i, name in names.items() if name != "background"}
        if conf.get("labels"):
            labels = {name.strip(): i for i, name in enumerate(conf["labels"].split(","), 1) if name.strip()}
        super().__init__(None, None, InferType.DEEPGROW, labels, dimension, METADATA["description"])
        self.served = served
        self.images = images

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        return {**super().info(), "version": METADATA["version"]}

    def config(self) -> dict[str, Any]:
        """Return a client's options, with the weights there are now."""
        options = {**self._config, "model_filename": offered()}
        return {**options, "spread": [CLICKED, WHOLE]} if self.dimension == 3 else options

    def get_path(self, validate: bool = True) -> str:
        """Return the file of the weights that answer."""
        return str(find_weights(BEST))

    def pre_transforms(self, data: Any = None) -> list:
        if data and self.spreads(data):
            data.pop("slice", None)  # clicks on all slices speak, not only those on the one that is shown
        return [self.images, RequestPromptsd()]

    def spreads(self, data: Mapping[str, Any]) -> bool:
        """Return whether a request asks for whole objects."""
        return self.dimension == 3 and data.get("spread") == WHOLE

    def run_inferer(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cpu") -> dict[str, Any]:
        """Answer with the weights that the request names.

        Args:
            data: of the request.
            convert_to_batch: as of MONAI Label; an image goes in as a batch of one either way.
            device: such as ``cpu`` or ``cuda:0``.
        """
        answering = self.served.use(find_weights(data.get("model_filename")), device)
        inferer = answering.spreading if self.spreads(data) else answering.inferer
        if inferer is None:
            raise RequestError(f"these weights have class masks, which cannot be spread: choose {CLICKED}")
        with torch.no_grad():
            data["pred"] = inferer(data["image"][None].to(device), answering.network)[0]
        data["postprocessing"] = answering.postprocessing
        return data

    def post_transforms(self, data: Any = None) -> list:
        return [*data.pop("postprocessing"), Restored(keys="pred", ref_image="image")]

    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[Any, dict]:
        """Write the mask as it lies in memory, on the grid of its file; a mask that was cut short is no answer.

        Args:
            data: of the request.
            extension: of the file to write.
            dtype: of its values.
        """
        mask = data["pred"].as_tensor().cpu().numpy()
        own = suffix_of(str(data["image_path"])) or ""
        extension = data.get("result_extension") or (own.lower() if own.lower() in WRITTEN else ".nrrd")
        source = Path(str(data["image_path"]))
        in_itk = affine_in_itk(source) if is_nifti(source) else None  # the client's own reader
        affine = np.asarray(data["pred_meta_dict"]["affine"]) if in_itk is None else in_itk
        if mask.ndim == 2:  # a picture has no place; a NIfTI of two axes has
            affine = affine[np.ix_([0, 1, 3], [0, 1, 3])] if own.lower() in VOLUMES and extension in VOLUMES else None
        # masks are nearly empty: 30 MB of a CT become 30 kB
        compress = data.get("result_compress", True)
        path = tempfile.NamedTemporaryFile(suffix=extension, delete=False).name
        try:
            write_itk(mask, path, affine, data.get("result_dtype"), compress)
            if os.path.getsize(path) == 0:  # ITK does not say so
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.path.dirname(path))
        except Exception:
            os.unlink(path)
            raise
        return path, {}
