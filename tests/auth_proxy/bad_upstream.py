"""API servers that behave badly, each in one way, behind a real agent. What each does stands in its name.

A way is a coroutine of reader and writer, run for each connection; `BadServer` also answers well when asked for `/well`, so that a
test sees that everybody else is still served.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common.relay.pool import Address

Way = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side gets a reset instead of an end."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def says(data: bytes, *, then: str = "waits") -> Way:
    """Answers with these bytes, then waits for the other side to close, closes itself, or resets."""

    async def way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if then == "waits":
            await reader.read()
        elif then == "resets":
            reset(writer)

    return way


async def endless_interim(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 50)
        await writer.drain()


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 1000:
        if writer.is_closing():
            return
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


SILENT: dict[str, Way] = {
    "hangs before the head": says(b""),
    "hangs in the head": says(b"HTTP/1.1 200 OK\r\nContent-"),
    "hangs after 100": says(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "sends the head a byte at a time": slow_head,
}
"""504 after the time for the first byte."""

BROKEN: dict[str, Way] = {
    "closes before the head": says(b"", then="closes"),
    "resets before the head": says(b"", then="resets"),
    "closes in the head": says(b"HTTP/1.1 200 OK\r\nContent-", then="closes"),
    "resets in the head": says(b"HTTP/1.1 200 OK\r\nContent-", then="resets"),
    "answers garbage": says(b"\x00\x01garbage\r\n\r\n"),
    "answers HTTP/2": says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\r\n\r\n"),
    "answers a TLS alert": says(b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n", then="closes"),
    "announces an answer for ever": endless_interim,
    "answers a head of 70 KiB": says(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n"),
    "answers a head without end": says(b"HTTP/1.1 200 OK\r\n" + b"X-Long: aaaaaaaa\r\n" * 20_000),
    "answers with two lengths": says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
    "answers with length and chunks": says(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok"
    ),
    "breaks the first chunk": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
    "switches protocols": says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
}
"""502 at once."""

TORN: dict[str, Way] = {
    "resets in the body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", then="resets"),
    "closes in the body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", then="closes"),
    "closes between chunks": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", then="closes"),
    "breaks a later chunk": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnonsense\r\n"),
    "hangs in the body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
    "hangs between chunks": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
}
"""Part of the answer is out: the client sees a torn connection, never a whole answer."""

ODD: dict[str, Way] = {
    "answers twice": says(GOOD + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    "answers more than it says": says(GOOD + b"more"),
    "speaks HTTP/1.0": says(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", then="closes"),
    "answers until it closes": says(b"HTTP/1.1 200 OK\r\n\r\nok", then="closes"),
    "closes after each answer": says(GOOD, then="closes"),
}
"""The answer arrives as it is meant, once."""


class BadServer:
    """One way at a time, or `ways` by the last part of the path; `heads` are the first lines that it got."""

    def __init__(self, ways: dict[str, Way] | None = None) -> None:
        self.way: Way = says(GOOD)
        self.ways = ways or {}
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen, at the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            self._server = None
            # Each way notices at its next step that its connection is gone.
            for _ in range(200):
                if not self._open:
                    break
                await asyncio.sleep(0.01)

    def address(self) -> Address:
        return Address("the API server", "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head.partition(b"\r\n")[0])
                if b"/well" in self.heads[-1]:
                    writer.write(GOOD)
                    continue
                name = self.heads[-1].split(b" ")[1].rpartition(b"/")[2].decode()
                await self.ways.get(name, self.way)(reader, writer)
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._open.discard(writer)
            writer.close()


class Authority:
    """A CA of a test, and the certificates that it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.ca"
        now = dt.datetime.now(dt.UTC)
        certificate = self._builder(self._name, self._key, now - dt.timedelta(days=9), now + dt.timedelta(days=9))
        signed = certificate.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def server_context(self, name: str, *, days: int = 1) -> ssl.SSLContext:
        """For a server at 127.0.0.1; `days` may be negative: expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        builder = self._builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            key,
            now - dt.timedelta(days=5),
            now + dt.timedelta(days=days),
        )
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        file = self._folder / f"{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begin: dt.datetime, end: dt.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
        )  # fmt: skip
