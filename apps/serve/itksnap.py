# SPDX-License-Identifier: Apache-2.0
"""The protocol of ITK-SNAP's deep-learning extension (itksnap-dls, MIT); no code of its server is used.

ITK-SNAP lists what a server has, sends the slice that is shown, or the volume, and takes a mask of the same size. It
has no key to give, so that a server with a key does not answer it.
"""

import base64
import gzip
import json
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Query, UploadFile

from apps.common.errors import RequestError
from apps.common.weights import Answering

from . import interactions
from .annotation import Annotation
from .interactions import Interaction
from .leases import Lease, Leases
from .wire import read_gzip

VERSION = "0.1.6"  # of the protocol, as itksnap-dls counts
SLICES, VOLUMES = "EfficientSAM-2D", "EfficientSAM-3D"
DRAWN = ["point", "scribble", "lasso"]
MODELS = [
    {"id": SLICES, "channels": [1, 3], "dimensions": 2, "interactions": DRAWN},
    {"id": VOLUMES, "channels": [1], "dimensions": 3, "interactions": DRAWN},
]

Upload = Annotated[UploadFile, File()]
Metadata = Annotated[str, Form()]


def make_routes(leases: Leases, answering: Callable[[], Answering], allowed: Callable) -> APIRouter:
    """Return the routes.

    Args:
        leases: of sessions.
        answering: gives the weights that answer the images to come.
        allowed: a dependency that refuses who has not the key.
    """
    routes = APIRouter(dependencies=[Depends(allowed)])

    @routes.get("/status")
    async def status() -> dict:
        return {"status": "ok", "version": VERSION}

    @routes.get("/v2/models")
    async def models() -> dict:
        return {"models": MODELS}

    @routes.get("/v2/start_session/{model}")
    async def start_session(model: str) -> dict:
        if model not in (SLICES, VOLUMES):
            raise RequestError(f"there is no model {model:.40}: choose {SLICES} or {VOLUMES}")
        session = leases.claim()
        leases.get(session).spreads = model == VOLUMES
        return {"session_id": session}

    @routes.post("/v2/upload_raw/{session}")
    @routes.post("/upload_raw/{session}")
    def upload_raw(session: str, file: Upload, metadata: Metadata) -> dict:
        with leases.use(session) as lease:
            image, spacing = read_image(file, metadata)
            leases.begin(lease, Annotation(answering(), image, spacing))
        return {"message": "the image is here"}

    @routes.get("/v2/process_point_interaction/{session}")
    def process_point(session: str, point: Annotated[list[int], Query()], foreground: bool = False) -> dict:
        with leases.use(session) as lease:
            indices = [*([0] if len(point) == 2 else []), *reversed(point)]  # (x, y[, z]) comes
            return answer(lease, interactions.click(indices, foreground, lease.object.shape))

    @routes.get("/process_point_interaction/{session}")
    def process_point_of_before(session: str, x: int, y: int, z: int, foreground: bool = False) -> dict:
        return process_point(session, [x, y, z], foreground)

    @routes.post("/process_scribble_interaction/{session}")
    def process_scribble(session: str, file: Upload, metadata: Metadata, foreground: bool = False) -> dict:
        with leases.use(session) as lease:
            mask = read_image(file, metadata)[0][0]
            return answer(lease, interactions.scribble(mask, foreground, None, lease.object.mask))

    @routes.post("/process_lasso_interaction/{session}")
    def process_lasso(session: str, file: Upload, metadata: Metadata, foreground: bool = False) -> dict:
        with leases.use(session) as lease:
            mask = read_image(file, metadata)[0][0]
            return answer(lease, interactions.region(mask, foreground, None, lease.object.mask))

    @routes.get("/v2/reset_interactions/{session}")
    @routes.get("/reset_interactions/{session}")
    def reset_interactions(session: str) -> dict:
        with leases.use(session) as lease:
            leases.next_object(lease)
        return {"status": "success"}

    @routes.get("/v2/end_session/{session}")
    @routes.get("/end_session/{session}")
    def end_session(session: str) -> dict:
        return {"message": "the session has ended" if leases.release(session) else "there is no such session"}

    return routes


def answer(lease: Lease, said: Interaction) -> dict:
    """Answer an interaction with the whole mask, as ITK-SNAP wants it.

    Args:
        lease: of the session, which is held.
        said: by its user.
    """
    lease.object.add(said)
    lease.object.predict(lease.spreads)
    packed = gzip.compress(lease.object.mask.astype(np.int8).tobytes(), 1)
    return {"status": "success", "result": base64.b64encode(packed).decode("ascii")}


def read_image(file: UploadFile, metadata: str) -> tuple[np.ndarray, list[float] | None]:
    """Read an image that ITK-SNAP sends.

    Args:
        file: its values, compressed by gzip.
        metadata: JSON with ``dimensions`` (x, y[, z]), ``spacing`` likewise and ``components_per_pixel``.

    Returns:
        (C, Z, Y, X), and the spacing of its last three axes.

    Raises:
        RequestError: when it cannot be read.
    """
    try:
        known: Any = json.loads(metadata)
        dimensions, count = list(known["dimensions"]), known.get("components_per_pixel", 1)
        spacing = [float(each) for each in known["spacing"]][::-1] if known.get("spacing") else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError("metadata is JSON with dimensions, spacing and components_per_pixel") from error
    if len(dimensions) not in (2, 3) or not all(type(each) is int for each in [*dimensions, count]):
        raise RequestError(f"an image has two or three dimensions of whole numbers, got {known['dimensions']!r:.80}")
    values = read_gzip(file.file.read(), [*([1] if len(dimensions) == 2 else []), *dimensions[::-1], count])
    if spacing is not None and len(spacing) == 2:
        spacing = [1.0, *spacing]
    return np.moveaxis(values, -1, 0), spacing
