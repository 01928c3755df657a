"""`/k8s/clusters/<name>/…`: a call to a cluster's API server. Authenticate, decide, impersonate, relay — in that order, no wait.

The path behind the cluster's name goes on as raw bytes. What the caller may do inside is judged by the cluster's own RBAC; whom the
caller may wish to be there (`--as`), too: the wish goes along, and is asked where the API server's credential is (`relay.terminal`).
One thing waits: namespaces, for members of projects (`namespaces`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.access.owed import explain
from libs.common.audit.request import RequestInfo
from libs.common.relay import impersonation, rebuild, status
from libs.common.relay.decision import Decision, Later, Relay, Reshape
from libs.common.relay.head import MAX_HEAD, RequestHead, ResponseHead
from libs.common.relay.impersonation import Wish
from libs.common.relay.names import CLUSTER_RESPONSE_DROPPED, KUBERNETES_PLAIN, KUBERNETES_REQUEST, UNBUFFERED
from libs.common.relay.session import Session
from libs.common.relay.terminal import UPGRADES
from services.auth_proxy.authenticate import Authenticator, Caller
from services.auth_proxy.calls import Calls, describe_wish
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.namespaces import NamespaceDesk
from services.auth_proxy.recording_policy import SessionRecording
from services.auth_proxy.ways import Wanted, Ways

PREFIX = b"/k8s/clusters/"
FIRST_BYTE_S = 90.0
"""Longer than an API server's own limit for short requests (60 s), so that its answer is the one that is seen."""
_NAME = re.compile(rb"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_DOT_SEGMENT = re.compile(rb"(?:/|%2f)(?:\.|%2e){1,2}(?:[/;]|%2f|%5c|$)", re.IGNORECASE)
_UNCLEAN = re.compile(rb"[^\x21-\x7e]|\\")
# An answer from a cluster may come from anything that runs there; in a browser it must not act as the hub's own page. And an nginx in
# front must pass a watch's events on as they come: it holds them back by default until a buffer is full.
_OWN_HEADERS = b"Content-Security-Policy: sandbox\r\nX-Content-Type-Options: nosniff\r\n" + UNBUFFERED
_LONG_VERBS = frozenset({"watch", "proxy"})
_LONG_PARTS = frozenset({"proxy", "log", "exec", "attach", "portforward"})


class ClusterRoute:
    def __init__(
        self,
        authenticator: Authenticator,
        grants: HasGrants,
        clusters: Callable[[str], ClusterFact | None],
        ways: Ways,
        calls: Calls,
        desk: NamespaceDesk,
        sessions: SessionRecording | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._grants = grants
        self._clusters = clusters
        self._ways = ways
        self._calls = calls
        self._desk = desk
        self._sessions = sessions
        self._reshapes: dict[str, Reshape] = {}

    def route(self, head: RequestHead, session: Session) -> Decision:
        caller: Caller | None = None
        name = ""
        self._calls.check_room()
        try:
            name, target = split_target(head.target)
            check_only_servers_write(head)
            wish = impersonation.parse_wish(head)
            caller = self._authenticator.authenticate(head)
            if caller is None:
                raise errors.Unauthenticated(
                    "no token came with the request: sign in, or take a kubeconfig from the hub"
                )
            return self._relay(head, session, caller, name, target, wish)
        except errors.HerdsmanError as exc:
            self._calls.refused(head, session, exc, caller, name)
            raise

    def _relay(
        self, head: RequestHead, session: Session, caller: Caller, name: str, target: bytes, wish: Wish | None
    ) -> Decision:
        wanted = self._let_in(head, session, caller, name, target, wish)
        verb = self._desk.concerns(wanted)
        return Later(lambda: self._decide_later(wanted, verb)) if verb else self._pass_on(wanted)

    def _let_in(
        self, head: RequestHead, session: Session, caller: Caller, name: str, target: bytes, wish: Wish | None
    ) -> Wanted:
        """By what is known at this moment. Raises Denied, and BadRequest."""
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
        return Wanted(head, session, caller, cluster, target, block, wish)

    async def _decide_later(self, wanted: Wanted, verb: str) -> Decision:
        name = wanted.cluster.name
        try:
            may_itself = await self._desk.may_itself(wanted, verb)
            # The cluster took its time: the token, its user, their roles and the cluster may be others by now.
            caller = await self._authenticator.find(wanted.caller.principal.token)
            if caller is None:
                raise errors.Unauthenticated(
                    "the token of this call was revoked or has expired, or its user was disabled"
                )
            wanted = self._let_in(wanted.head, wanted.session, caller, name, wanted.target, wanted.wish)
            self._calls.check_room()
            if may_itself:
                return self._pass_on(wanted)
            return self._desk.decide(wanted, verb, self._pass_on, self._reshape(name))
        except errors.HerdsmanError as exc:
            self._calls.refused(wanted.head, wanted.session, exc, wanted.caller, name)
            raise

    def _pass_on(self, wanted: Wanted) -> Relay:
        """The call as it is, as its caller."""
        head, target, wish, block, cluster = wanted.head, wanted.target, wanted.wish, wanted.block, wanted.cluster
        identity = block.lines
        if wish is not None:
            impersonation.check_reserved(wish)
            identity += b"".join(line + b"\r\n" for line in impersonation.render(wish, impersonation.FROM_HUB))
        # The token that a browser hides in a subprotocol is taken out for WebSockets only: elsewhere the name must not pass at all.
        allowed = KUBERNETES_REQUEST if head.upgrade == b"websocket" else KUBERNETES_PLAIN
        built = rebuild.request_head(head, target, allowed=allowed, host=b"kubernetes", identity=identity)
        if len(built) > MAX_HEAD:
            raise status.HeadTooLarge(
                f"the request's head with your {len(block.groups)} groups in the cluster is larger than 64 KiB: "
                "ask with a shorter query, or for fewer roles"
            )
        rebuild.check_identity(built, identity)
        call = self._calls.admit(head, wanted.session, wanted.caller, target, cluster.name, cluster.uid, block.groups)
        if wish is not None:
            call.impersonated = describe_wish(wish)
        reshape = call.announcing(self._reshape(cluster.name))
        relay = self._ways.relay(cluster, built, reshape, head, upgrade=head.upgrade)
        relay.first_byte_s = None if head.upgrade or is_long(call.info) else FIRST_BYTE_S
        relay.watcher, relay.tap = call, call.tap
        if head.upgrade and self._sessions is not None:
            return self._sessions.relay(relay, head, target, call)
        return relay

    def _reshape(self, name: str) -> Reshape:
        reshape = self._reshapes.get(name)
        if reshape is None:
            reshape = self._reshapes[name] = make_reshape(name)
        return reshape


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
    if caller.principal.read_only and (head.method not in (b"GET", b"HEAD") or head.upgrade):
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
