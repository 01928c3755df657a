"""`/k8s/clusters/<name>/…`: a call to a cluster's API server. Authenticate, decide, impersonate, relay — in that order, no wait.

The path behind the cluster's name goes on as raw bytes. What the caller may do inside is judged by the cluster's own RBAC; whom the
caller may wish to be there (`--as`), too: the wish goes along, and is asked where the API server's credential is (`relay.terminal`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from libs.common import errors
from libs.common.access.grants import Grants
from libs.common.access.live import HasGrants
from libs.common.access.owed import explain
from libs.common.audit.request import RequestInfo
from libs.common.relay import impersonation, rebuild, status
from libs.common.relay.decision import Decision, Relay, Reshape
from libs.common.relay.head import MAX_HEAD, Block, RequestHead, ResponseHead, parse_request
from libs.common.relay.impersonation import Wish
from libs.common.relay.names import CLUSTER_RESPONSE_DROPPED, KUBERNETES_PLAIN, KUBERNETES_REQUEST, UNBUFFERED
from libs.common.relay.session import Session
from libs.common.relay.terminal import UPGRADES
from services.auth_proxy.authenticate import Authenticator, Caller
from services.auth_proxy.calls import Calls, describe_wish
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.direct import DirectClusters
from services.auth_proxy.recording_policy import SessionRecording
from services.auth_proxy.tunnels import Tunnels

PREFIX = b"/k8s/clusters/"
FIRST_BYTE_S = 90.0
"""Longer than an API server's own limit for short requests (60 s), so that its answer is the one that is seen."""
_NAME = re.compile(rb"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_DOT_SEGMENT = re.compile(rb"(?:/|%2f)(?:\.|%2e){1,2}(?:[/;]|%2f|%5c|$)", re.IGNORECASE)
_UNCLEAN = re.compile(rb"[^\x21-\x7e]|\\")
# An answer from a cluster may come from anything that runs there; in a browser it must not act as the hub's own page. And an nginx in
# front must pass a watch's events on as they come: it holds them back by default until a buffer is full.
_OWN_HEADERS = b"Content-Security-Policy: sandbox\r\nX-Content-Type-Options: nosniff\r\n" + UNBUFFERED
_READS = (b"GET", b"HEAD")
_LONG_VERBS = frozenset({"watch", "proxy"})
_LONG_PARTS = frozenset({"proxy", "log", "exec", "attach", "portforward"})


class ClusterRoute:
    def __init__(
        self,
        authenticator: Authenticator,
        grants: HasGrants,
        clusters: Callable[[str], ClusterFact | None],
        tunnels: Tunnels,
        calls: Calls,
        direct: DirectClusters,
        sessions: SessionRecording | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._grants = grants
        self._clusters = clusters
        self._tunnels = tunnels
        self._calls = calls
        self._direct = direct
        self._sessions = sessions
        self._reshapes: dict[str, Reshape] = {}

    def route(self, head: RequestHead, session: Session) -> Decision:
        caller: Caller | None = None
        name = ""
        self._calls.check_room()
        try:
            name, target = split_target(head.target)
            way = head.block.onward
            if isinstance(way, _Way) and way.name == name and self._holds(way, head):
                caller = way.caller
                return self._go(head, session, way, target)
            check_only_servers_write(head)
            wish = impersonation.parse_wish(head)
            caller = self._authenticator.authenticate(head)
            if caller is None:
                raise errors.Unauthenticated(
                    "no token came with the request: sign in, or take a kubeconfig from the hub"
                )
            way = self._find_way(head, caller, name, wish)
            if wish is None and not head.upgrade:
                head.block.onward = way
            return self._go(head, session, way, target, wish)
        except errors.HerdsmanError as exc:
            self._calls.refused(head, session, exc, caller, name)
            raise

    def _holds(self, way: _Way, head: RequestHead) -> bool:
        """Whether `_find_way` would find the same for these fields now. What it looks at beside them is looked at here."""
        return (
            self._authenticator.is_current(way.caller)
            and self._grants.current is way.grants
            and self._clusters(way.uid) is way.cluster
            and (not way.reads_only or head.method in _READS)
        )

    def _find_way(self, head: RequestHead, caller: Caller, name: str, wish: Wish | None) -> _Way:
        """The decision on who calls which cluster, and the end of the head that says so. Raises Denied and BadRequest."""
        check_scope(head, caller, name)
        grants = self._grants.current
        uid = grants.clusters.get(name, "")
        cluster = self._clusters(uid)
        block = caller.block(grants, name, uid) if cluster is not None else None
        if block is None or cluster is None or not block.groups:
            # One text for a cluster that does not exist and for one that is none of the caller's business.
            raise errors.Denied(
                f'you have no role in a cluster "{name}": ask whoever runs it for one', kind="clusters", name=name
            )
        if head.upgrade and head.upgrade not in UPGRADES:
            raise errors.BadRequest("the only protocols to switch to are websocket and SPDY/3.1")
        identity = block.lines
        if wish is not None:
            impersonation.check_reserved(wish)
            identity += b"".join(line + b"\r\n" for line in impersonation.render(wish, impersonation.FROM_HUB))
        # The token that a browser hides in a subprotocol is taken out for WebSockets only: elsewhere the name must not pass at all.
        allowed = KUBERNETES_REQUEST if head.upgrade == b"websocket" else KUBERNETES_PLAIN
        tail = rebuild.request_tail(head, allowed=allowed, host=b"kubernetes", identity=identity)
        rebuild.check_identity(tail, identity)
        reshape = self._reshapes.get(name)
        if reshape is None:
            reshape = self._reshapes[name] = make_reshape(name)
        return _Way(name, uid, caller, grants, cluster, block.groups, tail, reshape)

    def _go(
        self, head: RequestHead, session: Session, way: _Way, target: bytes, wish: Wish | None = None
    ) -> Decision:  # fmt: skip
        upgrade = head.upgrade
        built = b"%b %b%b" % (head.method, target, way.tail)
        if len(built) > MAX_HEAD:
            raise status.HeadTooLarge(
                f"the request's head with your {len(way.groups)} groups in the cluster is larger than 64 KiB: "
                "ask with a shorter query, or for fewer roles"
            )
        call = self._calls.admit(head, session, way.caller, target, way.name, way.uid, way.groups)
        if wish is not None:
            call.impersonated = describe_wish(wish)
        reshape = call.announcing(way.reshape)
        terminal = self._direct.find(way.name, way.uid)
        if terminal is not None:
            relay = terminal.relay(way.read_again(head.method, target, built), reshape)
        else:
            relay = Relay(self._tunnels.source(way.cluster, upgrade=bool(upgrade)), built, reshape, upgrade)
        relay.first_byte_s = None if upgrade or is_long(call.info) else FIRST_BYTE_S
        relay.watcher, relay.tap = call, call.tap
        if upgrade and self._sessions is not None:
            return self._sessions.relay(relay, head, target, call)
        return relay


class _Way:
    """What was decided for the fields of one block, one caller and one cluster, by these very grants; `ClusterRoute._holds` says whether it
    still counts. `tail` is the end of the head for the next hop, seen to hold the identity."""

    __slots__ = ("_inner", "caller", "cluster", "grants", "groups", "name", "reads_only", "reshape", "tail", "uid")

    def __init__(
        self, name: str, uid: str, caller: Caller, grants: Grants, cluster: ClusterFact, groups: frozenset[str], tail: bytes,
        reshape: Reshape,
    ) -> None:  # fmt: skip
        self.name = name
        self.uid = uid
        self.caller = caller
        self.grants = grants
        self.cluster = cluster
        self.groups = groups
        self.tail = tail
        self.reshape = reshape
        self.reads_only = caller.principal.read_only
        self._inner: Block | None = None

    def read_again(self, method: bytes, target: bytes, built: bytes) -> RequestHead:
        """The head as an agent would read it. The same bytes, read by the same code: what it refuses is refused here too. The first line is
        as the client's was, which passed that code a moment ago; so the fields are read once."""
        if self._inner is not None:
            return RequestHead(method, target, self._inner)
        head = parse_request(built)
        self._inner = head.block if head.block.weight <= MAX_HEAD else None
        return head


def split_target(target: bytes) -> tuple[str, bytes]:
    """(cluster, the target inside it). Raises BadRequest for a name that is no label, and for paths that could be read in two ways."""
    path, mark, query = target[len(PREFIX) :].partition(b"?")
    name, slash, rest = path.partition(b"/")
    # Without the slash a relative redirect would lead to another cluster.
    if not slash or _NAME.fullmatch(name) is None:
        raise errors.BadRequest("the path must be /k8s/clusters/NAME/…, and NAME a cluster's name")
    suspect = b"/." in path or b"%" in path
    if rest.startswith(b"/") or b"\\" in rest or (suspect and _DOT_SEGMENT.search(b"/" + rest)):
        raise errors.BadRequest("the path holds an empty, '.' or '..' segment: write the path that is meant")
    return name.decode("ascii"), b"/" + rest + mark + query


def check_only_servers_write(head: RequestHead) -> None:
    """Raises BadRequest for headers that no client may send."""
    for lower, _, _ in head.claims:
        if lower.startswith((b"x-remote-", b"herdsman-")):
            raise errors.BadRequest("the request holds a header that only the hub itself may write")


def check_scope(head: RequestHead, caller: Caller, cluster: str) -> None:
    """What the token, whoever's it is, is good for. Raises Denied."""
    if caller.principal.owes:
        raise errors.Denied(explain(caller.principal.owes))
    if caller.clusters and cluster not in caller.clusters:
        raise errors.Denied(f'this token is not good for cluster "{cluster}"')
    if caller.principal.read_only and (head.method not in _READS or head.upgrade):
        raise errors.Denied("this token is good for reading only")


def is_long(info: RequestInfo) -> bool:
    """Whether the answer may rightly be silent for long: watches, logs, streams, and whatever runs behind a proxied service."""
    return info.verb in _LONG_VERBS or info.subresource in _LONG_PARTS


def make_reshape(cluster: str) -> Reshape:
    """The head of an answer, with what a cluster may not say in the hub's name left out. Redirects stay inside the cluster."""
    prefix = PREFIX + cluster.encode("ascii")

    def reshape(head: ResponseHead, close: bool) -> bytes:
        if 300 <= head.status < 400:
            _keep_inside(head, prefix)
        return rebuild.response_head(head, dropped=CLUSTER_RESPONSE_DROPPED, close=close, own=_OWN_HEADERS)

    return reshape


def _keep_inside(head: ResponseHead, prefix: bytes) -> None:
    """CVE-2022-3172: no answer of a cluster sends a client, and its token, elsewhere. Raises BadGateway."""
    for index, (lower, value, _) in enumerate(head.fields):
        if lower != b"location":
            continue
        path = re.split(rb"[?#]", value, maxsplit=1)[0]
        # Clients resolve dot segments, and browsers leave out tabs: both could lead out of the cluster, with the caller's token.
        if (
            b":" in path.partition(b"/")[0]
            or path.startswith(b"//")
            or _UNCLEAN.search(path)
            or _DOT_SEGMENT.search(b"/" + path)
        ):
            raise status.BadGateway("the cluster redirects out of itself: that is not followed and not passed on")
        inside = prefix + value if value.startswith(b"/") else value
        head.fields[index] = (lower, inside, b"Location: " + inside)
