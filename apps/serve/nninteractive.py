# SPDX-License-Identifier: Apache-2.0
"""Version 2 of the protocol of nnInteractive's clients, for 3D Slicer and napari.

The routes and arrays are those of the client package nninteractive-client 2.5 and later (Isensee et al.,
"nnInteractive: Redefining 3D Promptable Segmentation", 2025; Apache-2.0). No code of its server is used.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, Header, Request, Response
from nnInteractive.inference.remote import _protocol as protocol
from starlette.concurrency import run_in_threadpool

from apps.common.errors import RequestError
from apps.common.weights import Answering

from . import interactions
from .annotation import Annotation
from .fields import read_bounds, read_flag, read_meta, read_spacing
from .interactions import Box, Interaction, as_slices
from .leases import Lease, Leases
from .wire import TYPES, check_size, pack_array, read_packed

VERSION = "2.6.0"  # of the protocol, as the client package counts
CAPABILITIES: dict[str, Any] = {  # what is false, clients show grey
    "supported_interactions": {"points": True, "bbox2d": True, "bbox3d": False, "scribble": True, "lasso": True},
    "channel_mapping": {"prev_seg": 0},
    "num_interaction_channels": 1,
    "supports_initial_label": True,
    "supports_zero_shot_label_refinement": True,
    "preferred_scribble_thickness": [2, 2, 2],
    "interaction_decay": None,
    "patch_size": None,
    "do_autozoom": True,
    "inference_session_version": VERSION,
    "license": "Apache-2.0",
    "supports_undo": True,
}

Token = Annotated[str | None, Header(alias=protocol.LEASE_HEADER)]
Meta = Annotated[str, Header(alias=protocol.META_HEADER)]
Number = int | float


def make_routes(leases: Leases, answering: Callable[[], Answering], allowed: Callable) -> APIRouter:
    """Return the routes.

    Args:
        leases: of clients.
        answering: gives the weights that answer the images to come.
        allowed: a dependency that refuses who has not the key.
    """
    open_routes = APIRouter()
    routes = APIRouter(dependencies=[Depends(allowed)])

    @open_routes.get(protocol.PATH_HEALTHZ)
    async def healthz() -> dict:
        return {"ok": True}

    @routes.get(protocol.PATH_CAPABILITIES)
    async def capabilities() -> dict:
        return CAPABILITIES

    @routes.post(protocol.PATH_CLAIM)
    async def claim() -> dict:
        token = leases.claim()
        return {
            "lease_token": token,
            "idle_timeout_seconds": leases.idle_seconds,
            "liveness_timeout_seconds": leases.liveness_seconds or 0,
            "max_sessions": leases.most,
        }

    @routes.post(protocol.PATH_RELEASE)
    def release(token: Token = None) -> dict:
        return {"released": leases.release(token)}

    @routes.post(protocol.PATH_HEARTBEAT)
    async def heartbeat(token: Token = None) -> dict:
        return {"remaining_seconds": leases.remaining(leases.get(token))}

    @routes.get(protocol.PATH_LEASE_STATUS)
    async def lease_status(token: Token = None) -> dict:
        return {"remaining_seconds": leases.remaining(leases.get(token)), "idle_timeout_seconds": leases.idle_seconds}

    @routes.post(protocol.PATH_SET_IMAGE)
    async def set_image(request: Request, meta: Meta, token: Token = None) -> dict:
        leases.get(token)
        body = await request.body()
        properties = read_meta(meta).get("image_properties") or {}
        if not isinstance(properties, dict):
            raise RequestError(f"image_properties are an object of JSON, got {properties!r:.80}")

        def take() -> dict:
            with leases.use(token) as lease:
                image = read_packed(body)
                new = Annotation(answering(), image, read_spacing(properties.get("spacing")))
                leases.begin(lease, new)
                return {"original_image_shape": list(image.shape)}

        return await run_in_threadpool(take)

    @routes.post(protocol.PATH_SET_TARGET_BUFFER)
    def set_target_buffer(
        shape: Annotated[list[int], Body()], dtype: Annotated[str, Body()], token: Token = None
    ) -> dict:
        if dtype not in TYPES:
            raise RequestError(f"the type of a mask is one of {', '.join(sorted(TYPES))}, got {dtype!r:.40}")
        check_size(shape, np.dtype(dtype).itemsize)
        with leases.use(token) as lease:
            if lease.annotation is not None and tuple(shape) != lease.annotation.shape:
                raise RequestError(f"the mask is {shape}, and the image {list(lease.annotation.shape)}")
            lease.dtype = np.dtype(dtype)
        return {}

    @routes.post(protocol.PATH_SET_DO_AUTOZOOM)
    def set_do_autozoom(do_autozoom: Annotated[bool, Body(embed=True)], token: Token = None) -> dict:
        with leases.use(token) as lease:
            lease.spreads = do_autozoom
        return {}

    @routes.post(protocol.PATH_RESET_INTERACTIONS)
    def reset_interactions(token: Token = None) -> dict:
        with leases.use(token) as lease:
            leases.next_object(lease)
        return {}

    @routes.post(protocol.PATH_UNDO)
    def undo(token: Token = None) -> Response:
        with leases.use(token) as lease:
            return reply(lease, *lease.object.undo())

    @routes.post(protocol.PATH_PREDICT)
    def predict(force_full_refine: Annotated[bool, Body(embed=True)] = False, token: Token = None) -> Response:
        with leases.use(token) as lease:
            return answer(lease, None, True)

    @routes.post(protocol.PATH_ADD_POINT)
    def add_point(
        coordinates: Annotated[list[Number], Body()],
        include_interaction: Annotated[bool, Body()],
        run_prediction: Annotated[bool, Body()] = True,
        override_capability_checks: Annotated[bool, Body()] = False,
        token: Token = None,
    ) -> Response:
        with leases.use(token) as lease:
            said = interactions.click(coordinates, include_interaction, lease.object.shape)
            return answer(lease, said, run_prediction)

    @routes.post(protocol.PATH_ADD_BBOX)
    def add_box(
        bbox_coords: Annotated[list[list[Number]], Body()],
        include_interaction: Annotated[bool, Body()],
        run_prediction: Annotated[bool, Body()] = True,
        override_capability_checks: Annotated[bool, Body()] = False,
        token: Token = None,
    ) -> Response:
        with leases.use(token) as lease:
            return answer(lease, interactions.box(bbox_coords, include_interaction, lease.object.mask), run_prediction)

    async def add_drawing(request: Request, meta: str, token: str | None, read: Callable[..., Interaction]) -> Response:
        leases.get(token)
        body, said = await request.body(), read_meta(meta)

        def take() -> Response:
            with leases.use(token) as lease:
                mask = read_packed(body)
                bounds = said.get("interaction_bbox")
                found = read(mask, read_flag(said, "include_interaction"), read_bounds(bounds), lease.object.mask)
                return answer(lease, found, read_flag(said, "run_prediction", True))

        return await run_in_threadpool(take)

    @routes.post(protocol.PATH_ADD_SCRIBBLE)
    async def add_scribble(request: Request, meta: Meta, token: Token = None) -> Response:
        return await add_drawing(request, meta, token, interactions.scribble)

    @routes.post(protocol.PATH_ADD_LASSO)
    async def add_lasso(request: Request, meta: Meta, token: Token = None) -> Response:
        return await add_drawing(request, meta, token, interactions.region)

    @routes.post(protocol.PATH_ADD_INITIAL_SEG)
    async def add_initial_seg(request: Request, meta: Meta, token: Token = None) -> Response:
        leases.get(token)
        body, said = await request.body(), read_meta(meta)

        def take() -> Response:
            with leases.use(token) as lease:
                lease.object.start_from(read_packed(body))
                # the client has written it down itself, and what follows from it alone is asked for by predict
                return answer(lease, None, read_flag(said, "run_prediction", False))

        return await run_in_threadpool(take)

    open_routes.include_router(routes)
    return open_routes


def answer(lease: Lease, said: Interaction | None, run: bool) -> Response:
    """Take an interaction in, and answer it.

    Args:
        lease: of the client, which is held.
        said: by it, or nothing new.
        run: whether to answer now.
    """
    annotation = lease.object
    if said is not None:
        annotation.add(said)
    return reply(lease, *(annotation.predict(lease.spreads) if run else (False, None)))


def reply(lease: Lease, ran: bool, place: Box | None) -> Response:
    """Send what has changed of a mask.

    Args:
        lease: of the client.
        ran: whether anything was done.
        place: where the mask has changed.
    """
    meta: dict[str, Any] = {"ran_prediction": ran, "bbox": place and [list(each) for each in place]}
    body = b""
    if place is not None:
        part = np.ascontiguousarray(lease.object.mask[as_slices(place)]).astype(lease.dtype)
        body = pack_array(part)
        meta |= {"dtype": part.dtype.name, "shape": list(part.shape)}
    headers = {protocol.META_HEADER: json.dumps(meta)}
    return Response(body, media_type=protocol.CONTENT_TYPE_OCTET_STREAM, headers=headers)
