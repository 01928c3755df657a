"""An agent that was written from `proto/tunnel.md` alone: sockets, TLS, JSON and one signature, nothing of the engine. It serves real calls."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import threading
from pathlib import Path

import nkeys
import pytest

SPEC = Path(__file__).parents[2] / "proto" / "tunnel.md"
POD = "/k8s/clusters/prod/api/v1/pods"


def sign(seed: bytes, *texts: str) -> str:
    made = nkeys.from_seed(bytearray(seed)).sign("\n".join(texts).encode())
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


class SpecAgent(threading.Thread):
    """One connection, served until it ends. `carrier` as in §2."""

    def __init__(self, port: int, ca_file: Path, seed: bytes, public: str, cluster: str, carrier: str) -> None:
        super().__init__(daemon=True)
        self._carrier, self._port, self._seed, self._public, self._cluster = carrier, port, seed, public, cluster
        self._context = ssl.create_default_context(cafile=str(ca_file))
        self._bytes = b""
        self.welcome: dict[str, object] = {}
        self.served: list[str] = []
        self.pings = 0

    def run(self) -> None:
        with socket.create_connection(("localhost", self._port)) as plain:
            self._sock = self._context.wrap_socket(plain, server_hostname="localhost")
            with self._sock:
                try:
                    self._switch()
                    self._prove()
                    while self._serve_one():
                        pass
                except (EOFError, ConnectionError, ssl.SSLError):
                    return

    def _switch(self) -> None:
        lines = ["GET /agent/v1/connect HTTP/1.1", "Host: localhost", "Connection: Upgrade"]
        key = base64.b64encode(os.urandom(16)).decode()
        if self._carrier == "plain":
            lines.append("Upgrade: herdsman-tunnel/2")
        else:
            lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
            lines.append("Sec-WebSocket-Protocol: herdsman-tunnel.2")
        self._sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        raw = b""
        while not raw.endswith(b"\r\n\r\n"):
            raw += self._sock.recv(1)
        head = raw.decode().lower()
        assert head.startswith("http/1.1 101 "), head
        if self._carrier == "websocket":
            digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            assert f"sec-websocket-accept: {base64.b64encode(digest).decode().lower()}" in head

    def _prove(self) -> None:
        challenge = json.loads(self._until(b"\n"))
        instance, kube_system = "spec-agent-0001", "5d1c9a52"
        proof = {
            "cluster": self._cluster, "publicKey": self._public, "instance": instance, "kubeSystem": kube_system, "ca": "",
            "signature": sign(self._seed, "herdsman-tunnel/2", challenge["nonce"], self._cluster, instance, kube_system),
        }  # fmt: skip
        self._send(json.dumps(proof).encode() + b"\n")
        self.welcome = json.loads(self._until(b"\n"))

    def _serve_one(self) -> bool:
        head = self._until(b"\r\n\r\n").decode("latin-1")
        if head.startswith("OPTIONS * ") and "\r\nHerdsman-Ping: 1\r\n" in head:
            self.pings += 1
            self._send(b"HTTP/1.1 204 No Content\r\n\r\n")
            return True
        users = [line for line in head.split("\r\n") if line.lower().startswith("impersonate-user:")]
        if len(users) != 1 or not users[0].partition(":")[2].strip().startswith("herdsman:"):
            self._send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        self.served.append(head.partition("\r\n")[0])
        self._send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfrom spec")
        return True

    # bytes over either carrier

    def _until(self, end: bytes) -> bytes:
        while end not in self._bytes:
            self._bytes += self._receive()
        found, _, self._bytes = self._bytes.partition(end)
        return found + end

    def _receive(self) -> bytes:
        if self._carrier == "plain":
            data = self._sock.recv(65536)
            if not data:
                raise EOFError
            return data
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            size = struct.unpack("!H", self._exactly(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self._exactly(8))[0]
        assert not second & 0x80, "the hub does not mask"
        payload = self._exactly(size)
        if first & 0x0F == 8:
            raise EOFError
        return payload if first & 0x0F in (0, 2) else b""

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._sock.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _send(self, data: bytes) -> None:
        if self._carrier == "websocket":
            mask = os.urandom(4)
            size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
            data = b"\x82" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self._sock.sendall(data)


@pytest.mark.parametrize("carrier", ["plain", "websocket"])
async def test_agent_written_from_the_specification_serves(door, eventually, carrier):
    token = await door.member()
    key = door.keys["prod"]
    agent = SpecAgent(door.port, door.ca_file, key.seed, key.public, door.uids["cluster/prod"], carrier)
    agent.start()
    await eventually(lambda: agent.welcome)
    assert agent.welcome == {"waiting": 0, "ca": ""}
    await eventually(lambda: agent.pings, 10)
    for _ in range(3):
        answer = await door.get(POD, token)
        assert (answer.status, answer.body) == (200, b"from spec")
    assert agent.served == ["GET /api/v1/pods HTTP/1.1"] * 3
    door.tunnels.close()
    await asyncio.to_thread(agent.join, 5)
    assert not agent.is_alive()


def test_vectors_of_the_specification_hold():
    text = SPEC.read_text()
    lines = dict(
        line.split(maxsplit=1)
        for line in text.partition("### Test vectors")[2].split("```")[1].strip().splitlines()[:7]
    )
    seed = lines["seed"].split()[0].encode()
    pair = nkeys.from_seed(bytearray(seed))
    assert pair.public_key.decode() == lines["publicKey"].strip()
    texts = (lines["nonce"].strip(), lines["cluster"].strip(), lines["instance"].strip())
    assert sign(seed, "herdsman-tunnel/2", *texts, lines["kubeSystem"].strip()) == lines["signature"].strip()
    assert sign(seed, "herdsman-tunnel/2", *texts, "") in text
