# SPDX-License-Identifier: Apache-2.0
"""Prediction of one image after another, where one that fails does not stop the others."""

from typing import Any

from monai.engines import Evaluator

from ..data.inputs import InputLoader
from ..errors import InputError


class AttemptEach:
    """Do an evaluator's own iteration; an image that cannot be segmented becomes a problem of the loader.

    It is given as ``iteration_update``. After a failure the iteration has no batch and no output, so that handlers
    have nothing to do.

    Args:
        loader: that names the problems at the end.
    """

    def __init__(self, loader: InputLoader) -> None:
        self.loader = loader

    def __call__(self, engine: Evaluator, batchdata: dict[str, Any]) -> Any:
        """Segment the image of a batch of one."""
        image = batchdata["image"].meta["filename_or_obj"]
        try:
            return engine._iteration(engine, batchdata)
        except InputError as error:
            self.loader.fail(image[0] if isinstance(image, (list, tuple)) else image, error)
            engine.state.batch = []
            return []
