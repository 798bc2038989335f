# SPDX-License-Identifier: Apache-2.0
"""This bundle as an app of MONAI Label, for 3D Slicer, OHIF and CVAT: make label STUDIES=/data/mine."""

import logging
import os
import tempfile
from typing import Any

from fastapi import HTTPException
from lib.errors import RequestError, sentence_of
from lib.infer import BUNDLE, PromptedInfer, Served
from lib.ranking import LeastSure
from lib.train import Trainer
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from PIL import Image

logger = logging.getLogger(__name__)

READY = """
Ready: {address}
  3D Slicer: extension MONAI Label, server {address}, model efficientsam_2d under SmartEdit
  browser:   {address}/ohif/ (with a DICOMweb address as studies)
  what to switch off, and what each client can send: {docs}
"""


class LabelApp(MONAILabelApp):
    """Two models, for one slice and for several, that share their weights; a trainer; three orders of images."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.served = Served()
        super().__init__(app_dir, studies, conf, name="EfficientSAM Adapter", description="Clicks and boxes")

    def init_infers(self) -> dict[str, InferTask]:
        return {f"efficientsam_{n}d": PromptedInfer(self.served, self.conf, n) for n in (2, 3)}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {"efficientsam": Trainer(self.conf)}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"least_sure": LeastSure(self._infers["efficientsam_2d"]), "first": First(), "random": Random()}

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a request; what is wrong with it becomes a 4xx with its sentence."""
        image = request.get("image")
        if not os.path.exists(image) and not (datastore or self.datastore()).get_image_uri(image):
            raise _refuse(404, f"there is no image {image}")
        try:
            return super().infer(request, datastore)
        except MONAILabelException as error:
            if error.error != MONAILabelError.INVALID_INPUT:
                raise
            raise _refuse(404, error.msg) from error
        except Exception as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            raise _refuse(400, sentence) from error

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
            request = {"image": picture, "foreground": [[8, 8]], "result_extension": ".nrrd"}
            for model in self._infers:
                try:
                    os.unlink(self.infer({**request, "model": model})["file"])
                except HTTPException as error:  # the server starts, and says so again with each click
                    logger.error(error.detail)
        super().on_init_complete()
        if self.conf.get("address"):
            print(READY.format(address=self.conf["address"], docs=BUNDLE / "docs" / "annotate.md"), flush=True)


def _refuse(status: int, sentence: str) -> HTTPException:
    """Log what is wrong with a request, and give it to the client."""
    logger.warning(f"refused: {sentence}")
    return HTTPException(status_code=status, detail=sentence)
