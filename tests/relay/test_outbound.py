"""Dialling out: which proxy, what it says when it refuses, and what a person reads when the hub's certificate is wrong."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from libs.common import errors
from libs.common.relay.outbound import Hub, connect, explain_certificate, find_proxy

CASES = [
    ("https", "hub.example.org", 443, {}, None),
    ("https", "hub.example.org", 443, {"HTTPS_PROXY": "http://p:3128"}, "p:3128"),
    ("https", "hub.example.org", 443, {"https_proxy": "p:3128"}, "p:3128"),
    ("https", "hub.example.org", 443, {"HTTP_PROXY": "http://p:3128"}, None),
    ("http", "hub.example.org", 80, {"HTTP_PROXY": "http://p:3128"}, "p:3128"),
    ("https", "hub.example.org", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": "example.org"}, None),
    ("https", "hub.example.org", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": ".example.org"}, None),
    ("https", "hub.example.org", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": "*.example.org, x"}, None),
    ("https", "hub.example.org", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": "ample.org"}, "p"),
    ("https", "hub.example.org", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": "hub.example.org:443"}, None),
    ("https", "hub.example.org", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": "hub.example.org:8443"}, "p"),
    ("https", "hub.example.org", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": "*"}, None),
    ("https", "10.1.2.3", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, None),
    ("https", "10.1.2.3", 443, {"HTTPS_PROXY": "http://p", "NO_PROXY": "11.0.0.0/8,nonsense/x"}, "p"),
    ("https", "localhost", 443, {"HTTPS_PROXY": "http://p"}, None),
    ("https", "::1", 443, {"HTTPS_PROXY": "http://p"}, None),
]


@pytest.mark.parametrize(("scheme", "host", "port", "environment", "expected"), CASES)
def test_proxy_is_chosen_as_curl_does(scheme, host, port, environment, expected):
    found = find_proxy(scheme, host, port, environment)
    assert (found.netloc if found else None) == expected


def test_proxy_of_an_unknown_kind_is_an_error():
    with pytest.raises(errors.BadRequest, match="must be http://"):
        find_proxy("https", "h", 443, {"HTTPS_PROXY": "socks5://p"})


class _Proxy:
    def __init__(self, answer: bytes) -> None:
        self.answer, self.head = answer, b""

    async def serve(self, reader, writer):
        self.head = await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        if b" 200 " in self.answer:
            writer.write(await reader.read(100))
        await writer.drain()
        writer.close()


class _Collect(asyncio.Protocol):
    def __init__(self):
        self.data, self.done = b"", asyncio.Event()

    def data_received(self, data):
        self.data += data
        self.done.set()


async def through(answer: bytes):
    proxy = _Proxy(answer)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hub = Hub("http://hub.invalid:8080", None, {"http_proxy": f"http://me:se%40cret@127.0.0.1:{port}"})
    try:
        transport, protocol = await connect(hub, _Collect)
        transport.write(b"hello")
        await asyncio.wait_for(protocol.done.wait(), 2)
        transport.abort()
        await asyncio.sleep(0.01)
        return proxy, protocol.data
    finally:
        server.close()
        await asyncio.sleep(0.01)


async def test_connection_goes_through_the_proxy_with_its_password():
    proxy, echoed = await through(b"HTTP/1.1 200 Connection established\r\n\r\n")
    assert proxy.head.startswith(b"CONNECT hub.invalid:8080 HTTP/1.1\r\nHost: hub.invalid:8080\r\n")
    assert b"Proxy-Authorization: Basic bWU6c2VAY3JldA==" in proxy.head
    assert echoed == b"hello"


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"HTTP/1.1 403 No\r\n\r\n", b"garbage", b""]
)
async def test_refusing_proxy_is_named_without_its_password(answer):
    with pytest.raises(errors.Unavailable, match=r"the proxy 127\.0\.0\.1") as caught:
        await through(answer)
    assert "cret" not in caught.value.message


async def test_unreachable_hub_says_so():
    with pytest.raises(errors.Unavailable, match=r"the hub localhost:1 cannot be reached"):
        await connect(Hub("https://localhost:1", ssl.create_default_context()), _Collect)


async def test_silent_hub_says_so():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(errors.Unavailable, match="did not answer within"):
        await connect(Hub(f"https://127.0.0.1:{port}", ssl.create_default_context()), _Collect, timeout_s=0.2)
    server.close()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("certificate is not yet valid", "clock of this machine"),
        ("certificate has expired", "renew it"),
        ("Hostname mismatch, certificate is not valid for 'x'", "use a name that it holds"),
        ("self-signed certificate", "not signed by the CA"),
    ],
)
def test_certificate_errors_say_what_to_do(message, advice):
    exc = ssl.SSLCertVerificationError()
    exc.verify_message = message
    assert advice in explain_certificate(Hub("https://h"), exc)
