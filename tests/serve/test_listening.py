# SPDX-License-Identifier: Apache-2.0
"""What a server sends goes at once."""

import asyncio
import socket

import pytest

from apps.common.listening import listen_at


def test_answers_do_not_wait_for_the_client_to_acknowledge_their_first_part():
    """Each click took 40 ms more: asyncio leaves Nagle's algorithm on where a socket does not name its protocol."""
    found = []

    async def serve():
        async def answer(_, writer):
            connection = writer.get_extra_info("socket")
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen_at("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(answer, sock=listening):
                reader, writer = await asyncio.open_connection(*listening.getsockname())
                await reader.read()
                writer.close()

    asyncio.run(serve())
    assert found and found[0]


@pytest.mark.parametrize(("port", "error"), [(99999, OverflowError), (None, OSError)])
def test_a_port_that_cannot_be_had_is_refused(port, error):
    with listen_at("127.0.0.1", 0) as taken, pytest.raises(error):
        listen_at("127.0.0.1", taken.getsockname()[1] if port is None else port)
