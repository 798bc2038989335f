# SPDX-License-Identifier: Apache-2.0
"""The images and labels that are served: MONAI Label's datastores, with what they lose or hide put right."""

import io
import json
import logging
import os
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.exception import ImageNotFoundException
from pydicom import Dataset

from apps.common.errors import RequestError

from .listing import SUFFIXES, is_image, suffix_of

logger = logging.getLogger(__name__)

NO_IMAGES = {"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC", "AU", "ECG", "SMR"}  # modalities
NEVER_LONG = 5.0  # seconds that what a DICOMweb server lists is believed


class Studies(LocalDatastore):
    """A folder of images: of every kind that is read, in either case. Labels are saved whole or not at all.

    Args:
        folder: of the images; labels lie in ``labels`` there.
        auto_reload: look for images that come or go.
        read_only: as of :class:`LocalDatastore`.
    """

    def __init__(self, folder: str, auto_reload: bool = True, read_only: bool = False) -> None:
        config = Path(folder) / "datastore_v2.json"
        try:
            if config.is_file():
                LocalDatastoreModel.model_validate_json(config.read_text())
        except ValueError:  # of a disk that was full, or of a hand; the files themselves tell what there is
            os.replace(config, config.with_suffix(".broken"))
            logger.warning(f"{config} could not be read: it is kept as .broken, and the images are listed anew")
        super().__init__(folder, extensions=[f"*{s}" for s in SUFFIXES], auto_reload=auto_reload, read_only=read_only)

    def _to_id(self, file: str) -> tuple[str, str]:
        suffix = suffix_of(file) or "".join(Path(file).suffixes)
        return file.removesuffix(suffix), suffix

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """List what is offered; of a.png and a.jpg the first alone, since the name tells images apart."""
        names = [entry.name for entry in sorted(Path(path).iterdir()) if is_image(entry)]
        first: dict[str, str] = {}
        for name in names:
            kept = first.setdefault(self._to_id(name)[0], name)
            if kept != name:
                logger.warning(f"{name} is not offered, since {kept} has the same name: give it another")
        return {name: name for name in first.values()}

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Put an image in place, whole.

        Args:
            image_id: name of the image; nothing takes that of the file.
            image_filename: of the file.
            image_info: kept beside it.
        """
        stem, suffix = self._to_id(Path(image_filename).name)
        image_id = image_id or stem
        with FileLock(self._lock_file):
            noted = put(Path(image_filename), Path(self._datastore.image_path()) / f"{image_id}{suffix}")
            image = DataModel(info={**(image_info or {}), **noted}, ext=suffix)
            self._datastore.objects[image_id] = ImageLabelModel(image=image)
            self._update_datastore_file(lock=False)
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Put a label in place, whole.

        Args:
            image_id: name of the image; nothing takes that of the file.
            label_filename: of the file.
            label_tag: such as ``final``.
            label_info: kept beside it.
        """
        labels = self._datastore.objects.get(image_id)
        if not labels:
            raise ImageNotFoundException(f"there is no image {image_id}")
        suffix = suffix_of(Path(label_filename).name)
        if suffix is None:
            raise RequestError(f"a label is a file of a kind {' '.join(SUFFIXES)}, got {Path(label_filename).name}")
        with FileLock(self._lock_file):
            noted = put(Path(label_filename), Path(self._datastore.label_path(label_tag)) / f"{image_id}{suffix}")
            labels.labels[label_tag] = DataModel(info={**(label_info or {}), **noted}, ext=suffix)
            self._update_datastore_file(lock=False)
        return image_id

    def _update_datastore_file(self, lock: bool = True) -> None:
        """Write the list beside the old one first: a full disk leaves the old one."""
        with FileLock(self._lock_file) if lock else nullcontext():
            content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
            replace(Path(self._datastore_config_path), io.BytesIO(content.encode()))
            self._config_ts = os.stat(self._datastore_config_path).st_mtime


class DicomStudies(DICOMWebDatastore):
    """Series of a DICOMweb server: of every modality that has pictures, and known as labelled as soon as they are."""

    listed: tuple[float, list[str]] = (-1e9, [])

    def list_images(self) -> list[str]:
        if time.monotonic() - self.listed[0] > NEVER_LONG:
            found = [
                Dataset.from_json(each) for each in self._client.search_for_series(search_filters=self._search_filter)
            ]
            series = [str(each.SeriesInstanceUID) for each in found if str(each.get("Modality")) not in NO_IMAGES]
            self.listed = (time.monotonic(), series)
        return self.listed[1]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """List the images that have no label, and no label of theirs under another id.

        Args:
            label_tag: such as ``final``.
            labels: left alone, as of MONAI Label.
        """
        saved = set(LocalDatastore.get_labeled_images(self))  # here; the server's list of SEGs is asked once in a while
        return [each for each in super().get_unlabeled_images(label_tag, labels) if each not in saved]


def put(source: Path, destination: Path) -> dict[str, Any]:
    """Copy a file to where it belongs, in one step once it is whole; give what the datastore notes of it.

    Args:
        source: file.
        destination: where it goes, in one step.

    Raises:
        RequestError: when the file is empty.
        OSError: when the disk is full or write-protected; what was there before is still there.
    """
    if source.stat().st_size == 0:
        raise RequestError(f"{destination.name} has arrived empty: nothing was saved")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file:
        replace(destination, file)
    return {"ts": int(time.time()), "name": destination.name}


def replace(path: Path, content: IO[bytes]) -> None:
    """Write a file beside where it belongs, and put it there once it is whole.

    Args:
        path: of the file.
        content: of it.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
