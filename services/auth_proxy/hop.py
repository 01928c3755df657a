"""The inner end of the internal hop: requests that another front-door process has authenticated, decided and given an identity.

They come over a Unix socket that only this user can open, or over TLS that both sides prove with a certificate of the hub's internal
authority. Such a request goes to a reverse connection of this very process or is answered 503: it is never routed again, so there is no
loop. It is rebuilt from the allow-list and its identity is checked again, as the agent will. `hops` is the outer end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import structlog

from libs.common import errors
from libs.common.relay import guard, rebuild
from libs.common.relay.decision import Decision, Relay, Source
from libs.common.relay.head import RequestHead, ResponseHead
from libs.common.relay.names import KUBERNETES_REQUEST
from libs.common.relay.server import BACKLOG, Engine
from libs.common.relay.session import Session
from libs.common.relay.status import NotHere
from libs.common.relay.terminal import UPGRADES
from libs.common.relay.upstream import Upstream
from libs.common.runtime.config import ConfigError
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.tunnels import LocalTunnels

log = structlog.get_logger(component="tunnels")
HEADER = "Herdsman-Hop"
"""Names the cluster, by uid."""
NAME = "auth-proxy.hop.herdsman.internal"
"""What the certificate of either side must name: other certificates of the same authority are for other things."""
_LOWER = HEADER.lower().encode("ascii")
_DROPPED = frozenset({b"herdsman-not-here"})
_PEER_CREDENTIALS = struct.Struct("3i")
PORTS = 32
"""Workers of one machine, and their successors beside them, each have a port of their own."""
_PREFIX, _SUFFIX = "h-", ".sock"


class HopRoute:
    """The only route of the hop's listener."""

    def __init__(self, clusters: Callable[[str], ClusterFact | None], tunnels: LocalTunnels) -> None:
        self._clusters = clusters
        self._tunnels = tunnels

    def route(self, head: RequestHead, _session: Session) -> Decision:
        uids = head.values(_LOWER)
        if len(uids) != 1:
            raise errors.BadRequest(f"an internal hop needs {HEADER} exactly once")
        identity = render_identity(head)
        if head.upgrade and head.upgrade not in UPGRADES:
            raise errors.BadRequest("the only protocols to switch to are websocket and SPDY/3.1")
        built = rebuild.request_head(
            head, head.target, allowed=KUBERNETES_REQUEST, host=b"kubernetes", identity=identity
        )
        rebuild.check_identity(built, identity)
        cluster = self._clusters(uids[0].decode("ascii", "replace"))
        if cluster is None:
            raise NotHere("this process of the hub does not know the cluster")
        if not self._tunnels.cluster(cluster).connected:
            raise NotHere(f'this process of the hub has no connection of cluster "{cluster.name}"')
        tunnels = self._tunnels.source(cluster, upgrade=bool(head.upgrade))
        return Relay(
            _Held(tunnels, lambda: tunnels.connected and not self._tunnels.draining),
            built,
            _pass_on,
            upgrade=head.upgrade,
        )


def render_identity(head: RequestHead) -> bytes:
    """The caller's identity, and whom the caller wishes to be, as they came, checked as the agent will. Raises Denied or BadRequest."""
    return b"".join(line + b"\r\n" for line in guard.check(head))


class _Held:
    """A source that tells "nothing will come here any more" from "busy for too long": after the first, another process may help.

    To a process that drains agents bring no further connection: what is not ready there is not waited for.
    """

    def __init__(self, source: Source, can_wait: Callable[[], object]) -> None:
        self._source = source
        self._can_wait = can_wait

    def acquire(self) -> Upstream | None:
        return self._source.acquire()

    async def open(self) -> Upstream:
        if not self._can_wait():
            raise NotHere("this process of the hub is going away")
        try:
            return await self._source.open()
        except errors.Unavailable as exc:
            if not self._can_wait():
                raise NotHere(exc.message) from exc
            raise


def _pass_on(head: ResponseHead, close: bool) -> bytes:
    return rebuild.response_head(head, dropped=_DROPPED, close=close)


class _LocalSession(Session):
    """Over a Unix socket: the kernel says who is at the other end, and only this very user may be."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        _pid, uid, _gid = _PEER_CREDENTIALS.unpack(raw)
        if uid != os.geteuid():
            log.error("hop_refused", peer_uid=uid, reason="another user")
            transport.abort()  # type: ignore[attr-defined]
            self.closed = True
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.closed:
            super().connection_lost(exc)


class _RemoteSession(Session):
    """Over TLS: the certificate is of our authority, and must name a front door."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        certificate = transport.get_extra_info("peercert") or {}
        if ("DNS", NAME) not in certificate.get("subjectAltName", ()):
            log.error("hop_refused", peer=str(transport.get_extra_info("peername")), reason="certificate")
            transport.abort()  # type: ignore[attr-defined]
            self.closed = True
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.closed:
            super().connection_lost(exc)


def socket_path(folder: Path, worker: str) -> Path:
    return folder / f"{_PREFIX}{worker}{_SUFFIX}"


async def listen_local(engine: Engine, folder: Path, worker: str) -> asyncio.Server:
    """Listen on this process's socket in `folder`, and clear away those of processes that are gone. Raises Unavailable."""
    path = socket_path(folder, worker)
    try:
        _clear(folder)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind(str(path))
        path.chmod(0o600)
    except OSError as exc:
        raise errors.Unavailable(f"cannot listen on {path}: {exc.strerror or exc}") from exc
    return await asyncio.get_running_loop().create_unix_server(
        lambda: _LocalSession(engine), sock=sock, backlog=BACKLOG
    )


async def listen_remote(engine: Engine, host: str, port: int, tls: ssl.SSLContext) -> asyncio.Server:
    """Listen for other machines, on the first free of `PORTS` ports from `port` on. Raises Unavailable."""
    last = port + PORTS - 1 if port else 0
    for tried in range(port, last + 1):
        try:
            return await asyncio.get_running_loop().create_server(
                lambda: _RemoteSession(engine), host, tried, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=10.0,
            )  # fmt: skip
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or tried == last:
                raise errors.Unavailable(f"cannot listen on {host}:{tried}: {exc.strerror or exc}") from exc
    raise AssertionError("the last port either opened or raised")


def _clear(folder: Path) -> None:
    for old in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(str(old))
            except ConnectionRefusedError:
                old.unlink(missing_ok=True)
            except OSError:
                continue  # busy, or gone meanwhile


def load_hop_tls(certificate: Path, key: Path, authority: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(for listening, for dialling): both prove who they are and want the other's proof. Raises ConfigError."""
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        for context in (listening, dialling):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cafile=str(authority))
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"the hop's certificate {certificate}, key {key} or CA {authority} cannot be used: {exc}"
        ) from exc
    return listening, dialling
