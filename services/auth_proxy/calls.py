"""One call through the front door, from decision to end: it is registered while it runs, and written down when it ends.

The routes make a `Call` for each request they relay, and use `Calls.refused` for each they refuse.
"""

from __future__ import annotations

import asyncio
import re
from urllib.parse import unquote

from libs.common import errors
from libs.common.relay.exchange import Exchange
from libs.common.relay.head import RequestHead
from libs.common.relay.session import Session
from services.auth_proxy.audit import AuditSink, Record
from services.auth_proxy.authenticate import Caller
from services.auth_proxy.figures import Figures

_VERBS = {b"GET": "get", b"HEAD": "get", b"POST": "create", b"PUT": "update", b"PATCH": "patch", b"DELETE": "delete"}
_TOKEN = re.compile(r"\b(hmr?)_([A-Za-z0-9]+)_[^/.]+")
_READS = (b"GET", b"HEAD", b"OPTIONS")
Key = tuple[str, str]
"""(name of the token, name of the cluster or ""): what decides alike about all streams that share it."""


def find_verb(head: RequestHead) -> str:
    """The verb to write down. A GET that switches protocols (exec, attach, port-forward over WebSocket) is no read: KEP-4006."""
    if head.upgrade:
        return "create"
    verb = _VERBS.get(head.method, head.method.decode("ascii").lower())
    return "watch" if verb == "get" and is_watch(head.target) else verb


def is_watch(target: bytes) -> bool:
    query = target.partition(b"?")[2]
    return b"watch=" in query and any(part in (b"watch=true", b"watch=1") for part in query.split(b"&"))


def find_path(target: bytes) -> str:
    """The path to write down, without the query. A token in it (an import manifest's address holds one) shows its name alone."""
    path = target.partition(b"?")[0].decode("latin-1")
    plain = unquote(path)
    return _TOKEN.sub(r"\1_\2_***", plain) if _TOKEN.search(plain) else path


class Call:
    """A `relay.decision.Watcher`. `groups` is what the call was let in with; losing one of them ends it."""

    __slots__ = ("_calls", "caller", "cluster", "cluster_uid", "exchange", "groups", "peer")

    def __init__(
        self,
        calls: Calls,
        peer: str,
        caller: Caller | None,
        cluster: str = "",
        cluster_uid: str = "",
        groups: frozenset[str] = frozenset(),
    ) -> None:
        self._calls = calls
        self.peer = peer
        self.caller = caller
        self.cluster = cluster
        self.cluster_uid = cluster_uid
        self.groups = groups
        self.exchange: Exchange | None = None

    @property
    def key(self) -> Key:
        return (self.caller.principal.token if self.caller else "", self.cluster)

    @property
    def is_handed_over(self) -> bool:
        """The gateway has all of a request to change something: cutting it undoes nothing and hides what became of it."""
        exchange = self.exchange
        if self.cluster or exchange is None or not exchange.request_done:
            return False
        return not exchange.request.upgrade and exchange.request.method not in _READS

    def began(self, exchange: Exchange) -> None:
        self.exchange = exchange
        if self.caller is not None:
            self._calls.open.setdefault(self.key, set()).add(self)

    def ended(self, exchange: Exchange) -> None:
        if self.caller is not None:
            streams = self._calls.open.get(self.key)
            if streams is not None:
                streams.discard(self)
                if not streams:
                    del self._calls.open[self.key]
        took = asyncio.get_running_loop().time() - exchange.started
        self._calls.note(
            exchange.request, self.peer, self.caller, self.cluster, exchange.status,
            bytes_in=exchange.bytes_in, bytes_out=exchange.bytes_out, took_s=took, error=exchange.error,
        )  # fmt: skip

    def cut(self, error: errors.HerdsmanError) -> None:
        if self.exchange is not None:
            self.exchange.fail(error)


class Calls:
    """All open calls of this process, by what decides about them, and the way to the audit sink."""

    def __init__(self, sink: AuditSink, figures: Figures | None = None) -> None:
        self._sink = sink
        self._figures = figures
        self.open: dict[Key, set[Call]] = {}

    def refused(
        self, head: RequestHead, session: Session, error: errors.HerdsmanError, caller: Caller | None, cluster: str = ""
    ) -> None:
        """Write down a call that was not let through."""
        self.note(head, session.peer, caller, cluster, error.http_status, error=error.message)

    def note(
        self, head: RequestHead, peer: str, caller: Caller | None, cluster: str, status: int,
        *, bytes_in: int = 0, bytes_out: int = 0, took_s: float = 0.0, error: str = "",
    ) -> None:  # fmt: skip
        principal = caller.principal if caller is not None else None
        verb = find_verb(head)
        if self._figures is not None:
            self._figures.observe(bool(cluster), verb, status, took_s, bytes_in, bytes_out)
        self._sink.write(
            Record(
                user=principal.user if principal else "",
                user_uid=principal.user_uid if principal else "",
                token=principal.token if principal else "",
                cluster=cluster,
                verb=verb,
                method=head.method.decode("ascii"),
                path=find_path(head.target),
                status=status,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                duration_ms=round(took_s * 1000, 2),
                client=peer,
                error=error,
            )
        )
