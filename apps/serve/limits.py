# SPDX-License-Identifier: Apache-2.0
"""How much a request may bring: it is counted as it comes, whatever it says of itself."""

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .wire import MOST_BYTES

MOST_FIELDS = 2**20  # bytes of a body that has no image or drawing
ARRAYS = (  # how paths begin that take one
    "/set_image",
    "/add_scribble",
    "/add_lasso",
    "/add_initial_seg",
    "/upload_raw",
    "/v2/upload_raw",
    "/process_scribble",
    "/process_lasso",
)


class BodyLimit:
    """Refuse what is larger than a request of its kind may be, before it is kept.

    Args:
        app: that is protected.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = MOST_BYTES if scope["path"].startswith(ARRAYS) else MOST_FIELDS
        sentence = f"the request is larger than the {most / 2**20:.0f} MiB that it may have"
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await JSONResponse({"detail": sentence}, 413)(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise HTTPException(413, sentence)
            return message

        await self.app(scope, counted, send)
