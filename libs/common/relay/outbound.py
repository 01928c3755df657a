"""One connection from an agent to the hub: direct or through an HTTP proxy (CONNECT), then TLS with the hub's own CA.

`dial` calls `connect` for every reverse connection. Errors say what to do: they are read by whoever looks into the agent's log.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from libs.common import errors

P = TypeVar("P", bound=asyncio.BaseProtocol)
_MAX_PROXY_ANSWER = 16 * 1024


@dataclass(slots=True)
class Hub:
    """The hub's address. `tls` is None only for a plain http:// hub, which tests use; it is read for each connection, so that what is
    trusted may change. `environment` says which proxy to use.
    """

    url: str
    tls: ssl.SSLContext | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def host(self) -> str:
        host = self.parts.hostname
        if not host:
            raise errors.BadRequest(f"the hub's URL {self.url!r} names no host: it looks like https://hub.example.org")
        return host

    @property
    def port(self) -> int:
        return self.parts.port or (443 if self.parts.scheme == "https" else 80)

    @property
    def authority(self) -> str:
        return self.parts.netloc.rpartition("@")[2]

    @property
    def prefix(self) -> bytes:
        """The path before every path of ours, for a hub behind a shared name."""
        return self.parts.path.rstrip("/").encode("ascii")


async def connect(hub: Hub, factory: Callable[[], P], *, timeout_s: float = 10.0) -> tuple[asyncio.Transport, P]:
    """A connection to the hub with TLS done. Raises Unavailable with a sentence that names the step that failed."""
    loop = asyncio.get_running_loop()
    proxy = find_proxy(hub.parts.scheme, hub.host, hub.port, hub.environment)
    step = f"the proxy {_show(proxy)}" if proxy else f"the hub {hub.authority}"
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout(timeout_s):
            sock = (
                await _open_socket(proxy.hostname or "", proxy.port or 80)
                if proxy
                else await _open_socket(hub.host, hub.port)
            )
            if proxy:
                await _open_through(sock, proxy, hub)
            step = f"the hub {hub.authority}"
            transport, protocol = await loop.create_connection(
                factory, sock=sock, ssl=hub.tls, server_hostname=hub.host if hub.tls else None,
                ssl_handshake_timeout=timeout_s if hub.tls else None,
            )  # fmt: skip
            sock = None
    except TimeoutError as exc:
        raise errors.Unavailable(
            f"{step} did not answer within {timeout_s:g} s: check the address and the firewall"
        ) from exc
    except ssl.SSLCertVerificationError as exc:
        raise errors.Unavailable(explain_certificate(hub, exc)) from exc
    except ssl.SSLError as exc:
        raise errors.Unavailable(f"TLS with {step} failed: {exc.reason or exc}") from exc
    except OSError as exc:
        raise errors.Unavailable(f"{step} cannot be reached: {exc.strerror or exc}") from exc
    finally:
        if sock is not None:
            sock.close()
    return transport, protocol


def explain_certificate(hub: Hub, exc: ssl.SSLCertVerificationError) -> str:
    """Why the hub's certificate is refused, and what to do about it."""
    reason = exc.verify_message or exc.reason or "unknown reason"
    if "not yet valid" in reason:
        return (
            f"the certificate of the hub {hub.authority} is not valid yet: the clock of this machine is probably wrong"
        )
    if "expired" in reason:
        return f"the certificate of the hub {hub.authority} has expired: renew it, or check the clock of this machine"
    if "ostname mismatch" in reason or "IP address mismatch" in reason:
        return f"the certificate of the hub is for another name than {hub.host}: use a name that it holds"
    return f"the certificate of the hub {hub.authority} is not signed by the CA that this agent was given ({reason}): take the hub's current CA"


def find_proxy(scheme: str, host: str, port: int, environment: Mapping[str, str]) -> SplitResult | None:
    """The proxy for this address by HTTPS_PROXY / HTTP_PROXY and NO_PROXY, as curl and Go read them; upper or lower case."""

    def read(name: str) -> str:
        return environment.get(name.lower()) or environment.get(name.upper()) or ""

    value = read("https_proxy" if scheme == "https" else "http_proxy")
    if not value or _is_exempt(host, port, read("no_proxy")):
        return None
    parts = urlsplit(value if "://" in value else f"http://{value}")
    if parts.scheme != "http" or not parts.hostname:
        raise errors.BadRequest("the proxy in the environment must be http://[user:password@]host[:port]")
    return parts


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if entry == "*":
            return True
        if address is not None and "/" in entry:
            try:
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
            except ValueError:
                continue
        name, _, wanted = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        if wanted and wanted != str(port):
            continue
        bare = name.lstrip("*").lstrip(".")
        if bare and (host.lower() == bare or (address is None and host.lower().endswith(f".{bare}"))):
            return True
    return False


async def _open_socket(host: str, port: int) -> socket.socket:
    """Try every address of the name in turn."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    problem = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            problem = exc
            continue
        except BaseException:
            sock.close()
            raise
        return sock
    raise problem


async def _open_through(sock: socket.socket, proxy: SplitResult, hub: Hub) -> None:
    """Ask the proxy for a way to the hub. Raises Unavailable when it refuses."""
    loop = asyncio.get_running_loop()
    host = f"[{hub.host}]" if ":" in hub.host else hub.host
    lines = [f"CONNECT {host}:{hub.port} HTTP/1.1", f"Host: {host}:{hub.port}", "User-Agent: herdsman-agent"]
    if proxy.username is not None:
        secret = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(secret.encode()).decode()}")
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = await loop.sock_recv(sock, 4096)
        answer += piece
        if not piece or len(answer) > _MAX_PROXY_ANSWER:
            raise errors.Unavailable(f"the proxy {_show(proxy)} gave no clean answer: {_first_line(answer)!r}")
    line = _first_line(answer)
    if len(line.split()) < 2 or line.split()[1] != "200":
        raise errors.Unavailable(f"the proxy {_show(proxy)} refuses the way to {hub.authority}: {line!r}")
    if not answer.endswith(b"\r\n\r\n"):
        # Nothing speaks before the client does: what follows the head can't be the hub's.
        raise errors.Unavailable(f"the proxy {_show(proxy)} gave no clean answer: {line!r}")


def _first_line(answer: bytes) -> str:
    return answer.partition(b"\r\n")[0].decode("latin-1")[:200]


def _show(proxy: SplitResult) -> str:
    """The proxy's address without its password."""
    return proxy.netloc.rpartition("@")[2]
