"""Connections that are held back: what the far side sent before it closed is read all the same."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading

import pytest

from libs.common.relay import sockets
from tests.auth_proxy.door import make_pki

SENT = b"x" * 150_000


class Reader(asyncio.Protocol):
    """Takes what comes first and then nothing more, until somebody resumes it."""

    def __init__(self):
        self.received = b""
        self.began = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        sockets.tune(transport)

    def data_received(self, data):
        if not self.received:
            self.transport.pause_reading()
            self.began.set()
        self.received += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def say_and_leave(listener, context, in_tls, done):
    """Accept one connection, send, close: with a farewell of TLS or by the end of the stream alone."""
    plain, _ = listener.accept()
    with context.wrap_socket(plain, server_side=True) as connection:
        connection.sendall(SENT)
        if in_tls:
            connection.settimeout(10)
            connection.unwrap()
        connection.shutdown(socket.SHUT_WR)
    done.set()


@pytest.mark.parametrize("in_tls", [False, True], ids=["end of stream", "close_notify"])
async def test_held_back_bytes_outlive_the_far_sides_end(tmp_path, in_tls):
    certificate, key = make_pki(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far_side = threading.Thread(target=say_and_leave, args=(listener, server, in_tls, done))
        far_side.start()
        client = ssl.create_default_context(cafile=str(certificate))
        _, reader = await asyncio.get_running_loop().create_connection(
            Reader, "127.0.0.1", listener.getsockname()[1], ssl=client, server_hostname="localhost"
        )
        await reader.began.wait()
        if not in_tls:
            await asyncio.to_thread(done.wait, 10)
        # The end has arrived at this machine; give the loop every chance to see it while nobody reads.
        await asyncio.sleep(0.1)
        reader.transport.resume_reading()
        async with asyncio.timeout(10):
            await reader.lost
        await asyncio.to_thread(far_side.join)
    assert len(reader.received) == len(SENT)
