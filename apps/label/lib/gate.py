# SPDX-License-Identifier: Apache-2.0
"""Who may ask: by the name of the host, the page that asks, a token, and not with more than so many bytes."""

import base64
import binascii
import hmac
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import psutil
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 2 * 2**30  # of a request
OPEN_PATHS = ("/auth/", "/auth/token")  # where a client learns that there is a token, and gives it
CHALLENGE = {"WWW-Authenticate": 'Basic realm="any user name, and the token as password"'}  # a browser asks then


def own_hosts() -> set[str]:
    """List the names and addresses of this machine."""
    addresses = [each.address.partition("%")[0] for card in psutil.net_if_addrs().values() for each in card]
    names = ("localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn())
    return {host.lower() for host in (*names, *addresses)}


class Gate:
    """Refuse requests before anything reads them.

    A web page of another origin can make a browser send requests to this machine, also by a name of its own that it
    lets point here (DNS rebinding). So the host must be one of ours, and the origin the same.

    Args:
        app: what answers the others.
        hosts: names of the server beside the machine's own, as a proxy calls it.
        origins: such as ``https://viewer.example``, that may ask beside the server's own pages.
        token: that clients must show, as a bearer or as the password of any user.
        most_bytes: of a request's body.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        token: str | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.app = app
        self.hosts = own_hosts() | {host.lower() for host in hosts}
        self.origins = {origin.rstrip("/").lower() for origin in origins}
        self.token = token
        self.most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # nothing here has sockets
            return
        headers = Headers(scope=scope)
        refusal = self.refuse(scope["method"], scope["path"], headers)
        if refusal is None:
            return await self.app(scope, self.bounded(receive), send)
        status, sentence = refusal
        answer = JSONResponse({"detail": sentence}, status, CHALLENGE if status == 401 else None)
        await answer(scope, receive, send)

    def refuse(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return the status and the sentence of a refusal, or nothing.

        Args:
            method: of the request.
            path: of the request.
            headers: of the request.
        """
        host = headers.get("host", "")
        if urlsplit(f"//{host}").hostname not in self.hosts:
            return 400, f"this server is not {host:.80}: start it with that name in HOSTS"
        origin = headers.get("origin", "").lower()
        if origin and origin not in self.origins and origin.partition("://")[2] != host.lower():
            return 403, f"pages of {origin:.80} may not ask: start the server with that address in ORIGINS"
        from_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site") and not origin
        is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if from_elsewhere and not is_link:
            return 403, "pages of another address may not ask: start the server with their address in ORIGINS"
        size = headers.get("content-length", "0")
        if not size.isdigit() or int(size) > self.most_bytes:
            return 413, f"a request has at most {self.most_bytes} bytes"
        asks = path not in OPEN_PATHS and method != "OPTIONS"
        if self.token is not None and asks and not self.same(self.shown(headers), self.token):
            return 401, "give the token that the server was started with"
        return None

    @staticmethod
    def same(given: str, token: str) -> bool:
        """Compare without telling by the time how much is right.

        Args:
            given: what the client shows.
            token: the server's.
        """
        return hmac.compare_digest(given.encode(), token.encode())

    @staticmethod
    def shown(headers: Headers) -> str:
        """Return the token that a client shows."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return value.strip()
        try:
            return base64.b64decode(value).decode().partition(":")[2] if kind.lower() == "basic" else ""
        except (binascii.Error, UnicodeDecodeError):
            return ""

    def bounded(self, receive: Receive) -> Receive:
        """Stop a body that goes on past what it may have."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.most_bytes:
                raise HTTPException(413, f"a request has at most {self.most_bytes} bytes")
            return message

        return counted
