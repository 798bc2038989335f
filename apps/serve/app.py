# SPDX-License-Identifier: Apache-2.0
"""The server: both protocols, one set of weights for all clients, and what reaches a user when something is wrong."""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from apps.common.errors import sentence_of
from apps.common.weights import Answering

from . import itksnap, nninteractive
from .leases import AtCapacityError, Finish, LeaseGoneError, Leases
from .limits import BodyLimit

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
RETRY_SECONDS = 10  # after which a client may ask again whether there is room
REAP_SECONDS = 5

logger = logging.getLogger(__name__)


def make_app(
    answering: Callable[[], Answering],
    key: str | None = None,
    hosts: Sequence[str] = (),
    most_sessions: int = 8,
    idle_seconds: float = 600.0,
    liveness_seconds: float = 60.0,
    finish: Finish = lambda annotation: None,
) -> FastAPI:
    """Return the server.

    Args:
        answering: gives the weights that answer the images to come.
        key: that clients give; nothing asks for none.
        hosts: names by which the server is reached, beside those of this machine.
        most_sessions: clients at a time, of each protocol.
        idle_seconds: after which a session ends that is not used.
        liveness_seconds: after which it ends when its client is silent; ITK-SNAP is, between clicks.
        finish: is given what a client works on when it goes on to another object.
    """

    async def allowed(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if key and not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
            raise HTTPException(401, "the key is missing or wrong: give the server's --api-key")

    clients = Leases(most_sessions, idle_seconds, liveness_seconds, finish)
    snaps = Leases(most_sessions, idle_seconds, None, finish)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def reap() -> None:
            while True:
                await asyncio.sleep(REAP_SECONDS)
                for leases in (clients, snaps):
                    await asyncio.to_thread(leases.reap)

        reaping = asyncio.create_task(reap())
        yield
        reaping.cancel()
        for leases in (clients, snaps):
            for token in list(leases.held):
                leases.release(token)

    app = FastAPI(title="EfficientSAM Adapter", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, *hosts])
    app.include_router(nninteractive.make_routes(clients, answering, allowed))
    app.include_router(itksnap.make_routes(snaps, answering, allowed))

    @app.middleware("http")
    async def refuse_web_pages(request: Request, go_on: Callable) -> Response:
        # clients are programs: a browser names the page that asks, which may be any
        if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") != "none":
            return JSONResponse({"detail": "web pages are not served: use 3D Slicer, napari or ITK-SNAP"}, 403)
        return await go_on(request)

    @app.exception_handler(AtCapacityError)
    async def at_capacity(request: Request, error: AtCapacityError) -> Response:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(RETRY_SECONDS)})

    @app.exception_handler(LeaseGoneError)
    async def gone(request: Request, error: LeaseGoneError) -> Response:
        return JSONResponse({"detail": str(error)}, 410)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"] if each not in ("body", "query", "header"))
        return JSONResponse({"detail": f"{place or 'the request'}: {first['msg']}"}, 400)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        sentence = sentence_of(error)
        if sentence is not None:
            return JSONResponse({"detail": sentence}, 400)
        logger.error("a request failed", exc_info=error)
        return JSONResponse({"detail": "the server failed: its log says why"}, 500)

    @app.exception_handler(ValueError)
    async def refused(request: Request, error: ValueError) -> Response:
        return await failed(request, error)

    return app
