# SPDX-License-Identifier: Apache-2.0
"""Which image to annotate next: the one that the model is least sure of."""

import json
import logging
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from apps.common.errors import sentence_of
from apps.common.weights import BEST, find_weights
from scripts.io.file_state import file_state

from .infer import PromptedInfer

logger = logging.getLogger(__name__)

AT_ONCE = 16  # images scored while a client waits; the others follow with its next requests
FAR = 10**6  # a box to there is clipped to the image
WHOLE = {"roi": [0, FAR, 0, FAR, 0, FAR], "slice": -1}  # of a volume, the middle slice


class LeastSure(Strategy):
    """Rank unlabelled images by the IoU that the model predicts of its answer to the whole image, lowest first.

    Scores are kept as long as the weights stay what they are.

    Args:
        task: the model.
    """

    def __init__(self, task: PromptedInfer) -> None:
        super().__init__("The image that the model is least sure of")
        self.task = task
        self.scores: dict[str, float] = {}
        self.state: tuple | None = None

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, str] | None:
        """Return the image to annotate next, or nothing where all have a label."""
        images = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        state = file_state(find_weights(BEST))
        if self.state != state:  # the weights were others before
            self.state, self.scores = state, {}
        for image in [name for name in images if name not in self.scores][:AT_ONCE]:
            self.score(image, datastore)
        known = [name for name in images if name in self.scores]
        return {"id": min(known, key=lambda name: self.scores[name])} if known else None

    def score(self, image: str, datastore: Datastore) -> None:
        """Predict how good the model's answer is; an image that cannot be read comes last.

        Args:
            image: id of the image.
            datastore: that has it.
        """
        try:
            request = {"image": datastore.get_image_uri(image), "skip_writer": True, **WHOLE}
            _, data = self.task(request)
        except Exception as error:
            logger.warning(f"{image} is ranked last: {sentence_of(error) or error}")
            self.scores[image] = float("inf")
            return
        entries = json.loads(data["pred"].meta["prompts"])
        self.scores[image] = min((entry["predicted_iou"] for entry in entries), default=0.0)
