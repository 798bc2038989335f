# SPDX-License-Identifier: Apache-2.0
"""A port that a server takes before it loads anything."""

import socket


def listen_at(host: str, port: int) -> socket.socket:
    """Listen at a port, so that whoever comes before the server is ready waits.

    The protocol is named, since asyncio switches Nagle's algorithm off only then; with it each answer would wait 40 ms
    for the client to acknowledge its first part.

    Args:
        host: address.
        port: of it; 0 takes a free one.

    Raises:
        OSError: when another program has it, or there is no such address.
        OverflowError: when there is no such port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen()
    return listening
