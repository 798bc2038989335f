# SPDX-License-Identifier: Apache-2.0
"""This bundle as an app of MONAI Label, for 3D Slicer, OHIF and CVAT: make label STUDIES=/data/mine."""

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the bundle, whose modules are scripts

import monailabel.interfaces.app
import psutil
from lib.door import make_door
from lib.infer import KeptImaged, PromptedInfer
from lib.ranking import LeastSure
from lib.studies import DicomStudies, Studies
from lib.train import Trainer
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from PIL import Image

from apps.common.errors import RequestError
from apps.common.weights import Served
from scripts.errors import InputError

logger = logging.getLogger(__name__)


class LabelApp(MONAILabelApp):
    """Two models, for one slice and for several, that share their weights; a trainer; three orders of images.

    Args:
        app_dir: folder of the app.
        studies: folder of images, or address of a DICOMweb server.
        conf: options of the command line, by name.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.served, self.images = Served(), KeptImaged()
        own_temporary_folder()
        super().__init__(app_dir, studies, conf, name="EfficientSAM Adapter", description="Clicks and boxes")
        server = sys.modules.get("monailabel.app")
        if server is not None:  # not in the process of a training
            hosts, origins = ([each for each in conf.get(key, "").split(",") if each] for key in ("hosts", "origins"))
            is_remote = isinstance(self.datastore(), DicomStudies)
            # whatever starts the server, it is the door that answers, not MONAI Label's own routes
            server.app.middleware_stack = make_door(hosts, origins, conf.get("token") or None, is_remote)

    def init_datastore(self) -> Datastore:
        if not self.studies.startswith(("http://", "https://")):
            return Studies(
                self.studies, settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD, settings.MONAI_LABEL_DATASTORE_READ_ONLY
            )
        monailabel.interfaces.app.DICOMWebDatastore = DicomStudies  # which the method below makes
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = {}  # not CT alone
        return super().init_datastore()

    def init_infers(self) -> dict[str, InferTask]:
        return {f"efficientsam_{n}d": PromptedInfer(self.served, self.images, self.conf, n) for n in (2, 3)}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {"efficientsam": Trainer(self.conf)}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"least_sure": LeastSure(self._infers["efficientsam_2d"]), "first": First(), "random": Random()}

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a request, whose fields have been checked.

        Args:
            request: ``image`` is an id, or the absolute path of what has just come in.
            datastore: of the images.

        Raises:
            MONAILabelException: when there is no such image or model.
        """
        datastore = datastore or self.datastore()
        image, path = request["image"], request["image"]
        if not os.path.isabs(image):
            path = datastore.get_image_uri(image)
            if not path:
                raise MONAILabelException(MONAILabelError.INVALID_INPUT, f"there is no image {image}")
        answer = super().infer({**request, "image": path}, datastore)
        if request.get("save_label") and not os.path.isabs(image):
            tag = request.get("label_tag", DefaultLabelTag.ORIGINAL.value)
            info = {"model": request["model"], "params": answer["params"]}
            answer["label"], answer["tag"] = datastore.save_label(image, answer["file"], tag, info), tag
        return answer

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Train; what is wrong with the request or the labels is the last line of the training's log."""
        try:
            return super().train(request)
        except RequestError as error:
            raise SystemExit(f"error: {error}") from error

    def on_init_complete(self) -> None:
        """Click once on a black picture: reading, weights and ITK's writers load now, not while a reader waits."""
        with tempfile.TemporaryDirectory() as folder:
            picture = os.path.join(folder, "black.png")
            Image.new("L", (16, 16)).save(picture)
            request = {"image": picture, "foreground": [[8, 8]], "result_extension": ".nrrd", "device": "cpu"}
            for model in self._infers:
                try:
                    os.unlink(self.infer({**request, "model": model})["file"])
                except (RequestError, InputError) as error:  # the server starts, and says so again with each click
                    logger.error(f"{error}")
        super().on_init_complete()


def own_temporary_folder() -> None:
    """Keep what requests leave behind, which is patients' data, in a folder that goes with the server."""
    prefix = "efficientsam-label-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = folder.name.removeprefix(prefix).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):  # of a server that was killed
            shutil.rmtree(folder, ignore_errors=True)
    tempfile.tempdir = tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-")
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
