# SPDX-License-Identifier: Apache-2.0
"""From the logits of objects to files: a label map on the image's own grid, overlays, and the predicted IoU."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SaveImage, Transform
from PIL import Image

from ..figures import overlay, to_uint8
from ..prompts import pad_prompts

VOLUME_SUFFIXES = {".nrrd": ".nrrd", ".mha": ".mha", ".mhd": ".mha"}


class LabelMapd(MapTransform):
    """Merge the logits of Q objects into one label map.

    Args:
        keys: of (Q, X, Y[, Z]) logits; becomes (1, X, Y[, Z]) uint8 (uint16 above 255 objects): 0 is background, q + 1 is
            object q, and where objects overlap the largest logit wins.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        data = dict(data)
        for key in self.key_iterator(data):
            largest, index = data[key].max(dim=0, keepdim=True)
            labels = torch.where(largest > 0, index + 1, torch.zeros_like(index))
            data[key] = labels.to(torch.uint8 if data[key].shape[0] < 256 else torch.int32)
        return data


class SavePredictiond(Transform):
    """Write ``<name>_mask`` in the image's own kind of file, ``<name>_overlay.png`` and ``<name>_prediction.json``.

    Pictures (PNG, JPEG, TIFF, BMP) give a PNG, NIfTI gives NIfTI and NRRD gives NRRD with the same affine, DICOM gives NIfTI.
    A volume gets one overlay for each prompted slice that holds an object.

    Args:
        output_dir: folder to write to.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Save ``data["pred"]`` (1, X, Y[, Z]) of ``data["image"]`` (3, X, Y[, Z]), named ``data["name"]``."""
        labels, image = data["pred"], data["image"]
        self.output_dir.mkdir(parents=True, exist_ok=True)
        source = Path(str(image.meta["filename_or_obj"]))
        mask_path = self.save_mask(labels, source, str(data["name"]))
        entries = json.loads(labels.meta["prompts"])
        overlays = self.save_overlays(image, labels, entries, str(data["name"]))
        report = {"image": str(source), "mask": mask_path.name, "overlays": overlays, "objects": entries}
        (self.output_dir / f"{data['name']}_prediction.json").write_text(json.dumps(report, indent=2) + "\n")
        return data

    def save_mask(self, labels: MetaTensor, source: Path, name: str) -> Path:
        """Write the label map and give its path."""
        if labels.ndim == 3 and source.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"):
            path = self.output_dir / f"{name}_mask.png"
            array = np.asarray(labels[0].cpu()).T  # (X, Y) -> (H, W)
            Image.fromarray(array.astype(np.uint8 if array.max() < 256 else np.uint16)).save(path)
            return path
        suffix = VOLUME_SUFFIXES.get(source.suffix.lower(), ".nii.gz")
        path = self.output_dir / f"{name}_mask{suffix}"
        dtype = np.uint8 if int(labels.max()) < 256 else np.uint16
        writer = "NibabelWriter" if suffix == ".nii.gz" else "ITKWriter"
        save = SaveImage(output_ext=suffix, output_dtype=dtype, resample=False, writer=writer, print_log=False)
        save(labels.cpu(), filename=str(path)[: -len(suffix)])
        return path

    def save_overlays(self, image: MetaTensor, labels: MetaTensor, entries: list[dict], name: str) -> list[str]:
        """Draw masks and prompts of each prompted slice, and give the files' names."""
        is_volume = labels.ndim == 4
        ids = sorted({entry["object"] for entry in entries})
        saved = []
        for k in sorted({entry["slice"] for entry in entries}):
            picture, on_slice = (image[..., k], labels[0, ..., k]) if is_volume else (image, labels[0])
            masks = np.stack([np.asarray(on_slice.cpu()).T == q + 1 for q in ids])  # (X, Y) -> (H, W)
            if is_volume and not masks.any():
                continue
            prompts = [(e["points"], e["labels"]) for q in ids for e in entries if e["slice"] == k and e["object"] == q]
            file = f"{name}_slice{k:03d}_overlay.png" if is_volume else f"{name}_overlay.png"
            upright = to_uint8(picture.as_tensor().cpu().transpose(1, 2))
            Image.fromarray(overlay(upright, masks, *pad_prompts(prompts))).save(self.output_dir / file)
            saved.append(file)
        return saved
