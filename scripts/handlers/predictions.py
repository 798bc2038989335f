# SPDX-License-Identifier: Apache-2.0
"""Predictions to files: a label map on the image's own grid, overlays, and the predicted IoU.

This is a handler, not a transform, so that a server that uses the bundle's postprocessing writes nothing.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.transforms import SaveImage
from PIL import Image

from ..data.inputs import InputLoader
from ..errors import InputError
from ..io.axes import on_file_axes, slice_axis, upright
from ..io.dicom import write_segmentation
from ..io.nifti import is_nifti, save_like
from ..io.object_table import list_objects, write_objects
from ..io.pictures import PICTURE_SUFFIXES
from ..prompts.class_layout import ClassLayout
from ..prompts.form import Entry, Prompt, pad_prompts, read_entries
from ..reports.overlays import CRISP, PALETTE, drawn_step, overlay, to_uint8
from ..reports.views import views_of
from ..transforms.merge_logits import PROBABILITY_KEY

logger = logging.getLogger(__name__)

AS_IT_IS: dict[str, Any] = {"resample": False, "print_log": False}  # of what is saved
MOST_PIXELS = 2048  # of an overlay's longer side
VOLUME_SUFFIXES = {".nrrd": ".nrrd", ".mha": ".mha", ".mhd": ".mha"}


class PredictionSaver:
    """Write ``<name>_mask`` in the image's own kind of file, ``<name>_overlay.jpg``, ``<name>_objects.csv`` (see
    :func:`list_objects`) and ``<name>_prediction.json``.

    Pictures (PNG, JPEG, TIFF, BMP) give a PNG (ids as palette indices, in 16 bits above 255), NIfTI gives NIfTI and
    NRRD gives NRRD with the same affine, DICOM gives NIfTI, or DICOM SEG on request. ``<name>_probability.nii.gz``, on
    request, has the probability of each object, float32 with the axes x, y, slice and object. A volume gets one overlay
    for each prompted slice, or of several only for those where something was found, and ``<name>_views.png`` from three
    sides where objects were spread through it. The JSON holds the prompts, and the time that the inferer noted in
    ``meta["seconds"]``, if it did.

    Args:
        output_dir: folder to write to.
        loader: of the images, which names at the end those that could not be written.
        to_rgb: turns a slice into RGB in 0..1; nothing takes images to be that already.
        layout: of the classes, where the ids are classes and not objects.
        output_type: ``"dicomseg"`` writes a DICOM SEG of images that are DICOM; nothing writes what is told above.
        probability: write what :class:`scripts.transforms.MergeLogitsd` kept of each object.
        in_background: write an image while the next one is segmented. Where torch segments by the same processor it
            takes longer than one after the other: each of its operations waits for the core that writes.
    """

    def __init__(
        self,
        output_dir: str,
        loader: InputLoader,
        to_rgb: Callable | None = None,
        layout: ClassLayout | None = None,
        output_type: str | None = None,
        probability: bool = False,
        in_background: bool = True,
    ) -> None:
        if output_type not in (None, "dicomseg"):
            raise InputError(f"output_type is dicomseg or null, got {output_type!r}")
        self.loader = loader
        self.output_type = output_type
        self.names = None if layout is None else layout.names
        self.probability = probability
        self.to_rgb = to_rgb or (lambda image: image)
        self.output_dir = Path(output_dir)
        self.writer = ThreadPoolExecutor(1) if in_background else None
        self.written: Future | None = None  # of the image before

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.say_where)

    def __call__(self, engine: Engine) -> None:
        pairs = list(zip(engine.state.batch, engine.state.output))
        if self.writer is None:
            self.save_all(pairs)
            return
        self.wait()
        self.written = self.writer.submit(self.save_all, pairs)

    def wait(self) -> None:
        """Wait until the image before is written, so that no more than two are in memory."""
        if self.written is not None:
            self.written.result()

    def save_all(self, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Save what was found on images; what cannot be written becomes a problem of the loader.

        Args:
            pairs: the item and the result of each.
        """
        for item, result in pairs:
            source = str(item["image"].meta["filename_or_obj"])
            try:
                self.save(item["image"], result["pred"], item["name"])
                if self.probability:
                    self.save_probability(result, item["name"], Path(source))
            except (InputError, OSError) as error:  # such as a full disk
                self.loader.fail(source, error)

    def say_where(self, engine: Engine) -> None:
        self.wait()
        if engine.state.iteration:  # not where every item failed
            logger.info(f"wrote predictions to {self.output_dir}")

    def save(self, image: MetaTensor, labels: MetaTensor, name: str) -> None:
        """Save the label map (1, X, Y[, Z]), or one without a channel, of an image (C, X, Y[, Z]) under a name.

        Args:
            image: (C, X, Y[, Z]), with its meta.
            labels: (1, X, Y[, Z]) ids, or without a channel.
            name: of the files, without their endings.
        """
        if labels.ndim < image.ndim:
            labels = labels.unsqueeze(0)
        source = Path(str(image.meta["filename_or_obj"]))
        if source.resolve().parent == self.output_dir.resolve():
            raise InputError(
                f"output_dir {self.output_dir} is the folder of {source.name}: give another, or predictions would lie "
                "among images and replace what has their names"
            )
        self.output_dir.mkdir(parents=True, exist_ok=True)
        entries = read_entries(labels) or []
        if self.output_type:
            mask = self.save_segmentation(on_file_axes(image), on_file_axes(labels), entries, source, name)
        else:
            mask = self.save_mask(on_file_axes(labels), source, name).name
        overlays = self.save_overlays(image, labels, entries, name)
        rows = [
            row
            for k in sorted({entry["slice"] for entry in entries})
            for row in list_objects(upright_ids(labels, k), entries, k, self.names)
        ]
        write_objects(self.output_dir / f"{name}_objects.csv", rows)
        report: dict[str, Any] = {"image": str(source), "mask": mask, "overlays": overlays, "objects": entries}
        if slice_axis(image) != 2:
            report["axis"] = slice_axis(image)
        if "seconds" in labels.meta:
            report["seconds"] = labels.meta["seconds"]
        (self.output_dir / f"{name}_prediction.json").write_text(json.dumps(report, indent=2) + "\n")

    def save_segmentation(
        self, image: MetaTensor, labels: MetaTensor, entries: list[Entry], source: Path, name: str
    ) -> str | None:
        """Write the label map as a DICOM SEG, which cannot be empty, and give its name.

        Args:
            image: (C, X, Y[, Z]), with its meta.
            labels: (1, X, Y[, Z]) ids, or without a channel.
            entries: what was asked or found.
            source: the image's file.
            name: of the files, without their endings.
        """
        if not labels.any():
            logger.warning(f"nothing was found on {source}: no DICOM SEG is written, since it cannot be empty")
            return None
        count = max([int(labels.max()), *(entry["object"] + 1 for entry in entries)])
        names = self.names or [f"object {number}" for number in range(1, count + 1)]
        path = self.output_dir / f"{name}_mask.dcm"
        write_segmentation(path, source, labels[0].cpu(), np.asarray(image.affine, float), names)
        return path.name

    def save_mask(self, labels: MetaTensor, source: Path, name: str) -> Path:
        """Write the label map and give its path.

        Args:
            labels: (1, X, Y[, Z]) ids, or without a channel.
            source: the image's file.
            name: of the files, without their endings.
        """
        if labels.ndim == 3 and source.suffix.lower() in PICTURE_SUFFIXES:
            path = self.output_dir / f"{name}_mask.png"
            array = upright_ids(labels)
            picture = Image.fromarray(array.astype(np.uint8 if array.max() < 256 else np.uint16))
            if picture.mode == "L":  # values are ids; colours are for viewers, where ids would all look black
                picture.putpalette(np.vstack([[[0, 0, 0]], np.resize(PALETTE, (255, 3))]).astype(np.uint8).tobytes())
            picture.save(path)
            return path
        suffix = VOLUME_SUFFIXES.get(source.suffix.lower(), ".nii.gz")
        path = self.output_dir / f"{name}_mask{suffix}"
        dtype = np.uint8 if int(labels.max()) < 256 else np.uint16
        if is_nifti(source):
            save_like(path, labels[0].cpu().numpy().astype(dtype), source)
            return path
        writer = "NibabelWriter" if suffix == ".nii.gz" else "ITKWriter"
        save = SaveImage(output_ext=suffix, output_dtype=dtype, writer=writer, **AS_IT_IS)
        save(labels.cpu(), filename=str(path)[: -len(suffix)])
        return path

    def save_probability(self, result: Mapping[str, Any], name: str, source: Path) -> None:
        """Write the probabilities (Q, X, Y[, Z]) as NIfTI, the objects on the last of four axes.

        Args:
            result: of the inferer, (1, C', X, Y[, Z]).
            name: of the files, without their endings.
            source: the image's file.
        """
        if PROBABILITY_KEY not in result:
            raise InputError("output_probability is of what prompts ask for: everything mode gives instances alone")
        path = str(self.output_dir / f"{name}_probability")
        save = SaveImage(output_ext=".nii.gz", output_dtype=np.float32, writer="NibabelWriter", **AS_IT_IS)
        save(on_file_axes(result[PROBABILITY_KEY]).cpu(), filename=path)
        if is_nifti(source):  # the same voxels, where the source lies
            saved: Any = nibabel.load(f"{path}.nii.gz")
            save_like(Path(f"{path}.nii.gz"), np.asarray(saved.dataobj), source)

    def save_overlays(self, image: MetaTensor, labels: MetaTensor, entries: list[Entry], name: str) -> list[str]:
        """Draw masks and prompts of each prompted slice, and give the files' names.

        Args:
            image: (C, X, Y[, Z]), with its meta.
            labels: (1, X, Y[, Z]) ids, or without a channel.
            entries: what was asked or found.
            name: of the files, without their endings.
        """
        is_volume = labels.ndim == 4
        slices = sorted({entry["slice"] for entry in entries})
        saved = []
        for k in slices:
            picture, on_slice = image[..., k] if is_volume else image, upright_ids(labels, k)
            step = drawn_step(picture.shape[1:], MOST_PIXELS)
            picture, on_slice = picture[:, ::step, ::step], on_slice[::step, ::step]
            if len(slices) > 1 and not on_slice.any():
                continue
            asked = [Prompt.of(entry) for entry in entries if entry["slice"] == k]
            prompts = [Prompt(xy / step, point_labels) for xy, point_labels in asked]  # some were not asked for
            file = f"{name}_slice{k:03d}_overlay.jpg" if is_volume else f"{name}_overlay.jpg"
            drawn = to_uint8(upright(self.to_rgb(picture).as_tensor().cpu()))
            picture_of = Image.fromarray(overlay(drawn, on_slice, *pad_prompts(prompts)))
            picture_of.save(self.output_dir / file, **CRISP)
            saved.append(file)
        if is_volume and any(entry.get("extent") for entry in entries):
            file = f"{name}_views.png"
            views = views_of(image, np.asarray(labels[0].cpu()), entries, self.to_rgb)
            Image.fromarray(views).save(self.output_dir / file)
            saved.append(file)
        return saved


def upright_ids(labels: MetaTensor, k: int = 0) -> np.ndarray:
    """Return the (H, W) ids of a label map (1, X, Y), or of a slice of one (1, X, Y, Z).

    Args:
        labels: (1, X, Y[, Z]) ids, or without a channel.
        k: index of the slice.
    """
    return upright(np.asarray((labels[0, ..., k] if labels.ndim == 4 else labels[0]).cpu()))
