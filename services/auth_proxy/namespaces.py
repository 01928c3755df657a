"""Namespaces for members of projects: a list of just theirs, and making them as plain kubectl does it.

RBAC can let somebody list all namespaces or none, and make any or none. So what the cluster does not let a caller do itself is looked at here: lists and watches
are asked for under the hub's own group, narrowed to the caller's projects (`namespace_view`); making one is the project
service's business. Who may in the cluster itself, by a role of the hub or by whatever its administrators bound, is not touched by any of it: the cluster
is asked first, as the caller.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

from libs.common import errors
from libs.common.access.grants import Grants
from libs.common.access.live import HasGrants
from libs.common.access.principal import NAMESPACE_VIEWERS
from libs.common.crypto.envelope import HEADER, Signer
from libs.common.relay import rebuild, status
from libs.common.relay.ask import ask
from libs.common.relay.decision import Relay, Reshape
from libs.common.relay.head import MAX_HEAD, ResponseHead, parse_request
from libs.common.relay.names import KUBERNETES_PLAIN
from libs.common.relay.pool import Pool
from libs.common.relay.review import parse_answer
from services.auth_proxy import identity
from services.auth_proxy.authenticate import Caller
from services.auth_proxy.calls import Calls
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.namespace_view import PATH, concerns, find_names, name_in, narrow, narrow_accept
from services.auth_proxy.namespace_watch import Narrowed, WatchTap, accept_of
from services.auth_proxy.places import Places
from services.auth_proxy.ways import Plainly, Wanted, Ways

ASK_S = 10.0
FIRST_BYTE_S = 90.0
MADE = b"herdsman-namespace"
"""Header of the gateway's answer: the namespace is there now, and its name."""
_REVIEWS = b"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_ENVELOPE = HEADER.encode("ascii") + b": "
_LABEL = re.compile(rb"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_STREAM = KUBERNETES_PLAIN - {b"accept", b"accept-encoding", b"range", b"if-range"}
_LIST = KUBERNETES_PLAIN - {b"range", b"if-range"}
_WRITE = KUBERNETES_PLAIN - {b"accept", b"accept-encoding"}


class NamespaceDesk:
    def __init__(
        self, grants: HasGrants, places: Places, calls: Calls, ways: Ways, gateway: Pool, signer: Signer,
        monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._grants = grants
        self._places = places
        self._calls = calls
        self._ways = ways
        self._gateway = gateway
        self._signer = signer
        self._monotonic = monotonic

    def concerns(self, wanted: Wanted) -> str:
        """The verb of a call that `may_itself` and `decide` are for, "" for all others; they cost nothing here.

        Whoever acts as somebody else (`--as`) gets what the cluster gives to that one.
        """
        if not wanted.target.startswith(PATH) or wanted.wish is not None:
            return ""
        verb = concerns(wanted.head, wanted.target)
        grants, principal, cluster = self._grants.current, wanted.caller.principal, wanted.cluster
        if not verb or not grants.project_roles(principal, cluster.name, cluster.uid):
            return ""
        if verb == "get" and name_in(wanted.target) in (self._find_names(wanted.caller, grants, cluster, verb) or ()):
            return ""
        return "" if grants.is_allowed_inside(principal, cluster.name, cluster.uid, verb, "", "namespaces") else verb

    def decide(self, wanted: Wanted, verb: str, plainly: Plainly, reshape: Reshape) -> Relay:
        """Where a call goes that the cluster does not let its caller make (`may_itself`)."""
        if verb == "create":
            return self._hand_over(wanted, reshape)
        names = self._find_names(wanted.caller, self._grants.current, wanted.cluster, verb)
        if names is not None and verb == "get":
            name = name_in(wanted.target)
            if name in names:
                return plainly(wanted)
            # As a list does not show it. `kubectl apply` looks before it makes one, and only this answer lets it go on.
            raise errors.NotFound(f'namespaces "{name}" not found', kind="namespaces", name=name)
        return plainly(wanted) if names is None else self._view(wanted, names, verb, reshape)

    # ── seeing ──

    def _view(self, wanted: Wanted, names: frozenset[str], verb: str, reshape: Reshape) -> Relay:
        head, caller, cluster = wanted.head, wanted.caller, wanted.cluster
        watch = verb == "watch"
        accept = narrow_accept(accept_of(head), watch=True) if watch else ""
        who = identity.render(caller.principal, (NAMESPACE_VIEWERS,), cluster.uid).lines
        built = rebuild.request_head(
            head, narrow(wanted.target, names), allowed=_STREAM if watch else _LIST, host=b"kubernetes",
            own=(b"Accept: " + accept.encode("latin-1"),) if accept else (), identity=who,
        )  # fmt: skip
        if len(built) > MAX_HEAD:
            raise status.HeadTooLarge(
                f"your projects have {len(names)} namespaces in this cluster, more than fit into one question: "
                "ask for one with --field-selector metadata.name=NAME"
            )
        rebuild.check_identity(built, who)
        call = self._calls.admit(
            head, wanted.session, caller, wanted.target, cluster.name, cluster.uid, wanted.block.groups
        )
        relay = self._ways.relay(cluster, built, call.announcing(reshape))
        relay.first_byte_s = None if watch else FIRST_BYTE_S
        relay.watcher, relay.tap = call, call.tap
        if watch:
            tap = WatchTap(call.tap)
            relay.tap = tap
            call.narrowed = Narrowed(
                names, lambda who, now: self._find_names(who, now, cluster, verb), self._places, tap
            )
        return relay

    def _find_names(self, caller: Caller, grants: Grants, cluster: ClusterFact, verb: str) -> frozenset[str] | None:
        return find_names(grants, self._places, caller.principal, cluster.name, cluster.uid, verb)

    # ── making ──

    def _hand_over(self, wanted: Wanted, reshape: Reshape) -> Relay:
        """To the project service, by the gateway. What was made is answered as the cluster has it."""
        head, caller, cluster = wanted.head, wanted.caller, wanted.cluster
        path, mark, query = wanted.target.partition(b"?")
        target = b"/v1/clusters/" + cluster.name.encode("ascii") + path.removeprefix(b"/api/v1") + mark + query
        own = [
            b"X-Forwarded-For: " + wanted.session.peer.encode("ascii"), b"X-Forwarded-Proto: https", b"Accept: application/json",
            _ENVELOPE + caller.envelope(self._signer, self._monotonic()),
        ]  # fmt: skip
        built = rebuild.request_head(head, target, allowed=_WRITE, host=b"hub", own=own)
        call = self._calls.admit(
            head, wanted.session, caller, wanted.target, cluster.name, cluster.uid, wanted.block.groups
        )
        return Relay(
            self._gateway, built, _pass_on, first_byte_s=FIRST_BYTE_S, watcher=call, tap=call.tap,
            then=lambda answer: self._read_made(wanted, answer, reshape),
        )  # fmt: skip

    def _read_made(self, wanted: Wanted, answer: ResponseHead, reshape: Reshape) -> Relay | None:
        name = answer.value(MADE)
        if answer.status != 201 or not name:
            return None
        if _LABEL.fullmatch(name) is None:
            raise errors.Internal("internal error: a namespace was made whose name is none")
        accept = accept_of(wanted.head) or "application/json"
        asked = parse_request(
            b"GET " + PATH + b"/" + name + b" HTTP/1.1\r\nHost: h\r\nAccept: " + accept.encode("latin-1")
            + b"\r\nUser-Agent: herdsman-namespaces\r\n\r\n"
        )  # fmt: skip
        who = identity.render(wanted.caller.principal, (NAMESPACE_VIEWERS,), wanted.cluster.uid).lines
        built = rebuild.request_head(asked, asked.target, allowed=KUBERNETES_PLAIN, host=b"kubernetes", identity=who)
        rebuild.check_identity(built, who)

        def created(head: ResponseHead, close: bool) -> bytes:
            if head.status != 200:
                raise errors.Unavailable(
                    f'namespace "{name.decode()}" was made, but the cluster answered {head.status} when it was asked for it'
                )
            head.status = 201
            head.raw = b"HTTP/1.1 201 Created" + head.raw[head.raw.index(b"\r\n") :]
            return reshape(head, close)

        relay = self._ways.relay(wanted.cluster, built, created)
        relay.first_byte_s = FIRST_BYTE_S
        return relay

    # ── the cluster's own word ──

    async def may_itself(self, wanted: Wanted, verb: str) -> bool:
        """Whether the cluster lets the caller do this without us. Raises Unavailable and its like when it gives no answer."""
        attributes = {"verb": verb, "version": "v1", "resource": "namespaces"}
        if name := name_in(wanted.target):
            attributes |= {"name": name, "namespace": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        body = json.dumps(review, separators=(",", ":")).encode()
        asked = parse_request(
            b"POST "
            + _REVIEWS
            + b" HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
            b"User-Agent: herdsman-namespaces\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        built = rebuild.request_head(
            asked, asked.target, allowed=KUBERNETES_PLAIN, host=b"kubernetes", identity=wanted.block.lines
        )
        rebuild.check_identity(built, wanted.block.lines)
        relay = self._ways.relay(wanted.cluster, built, _pass_on)
        try:
            async with asyncio.timeout(ASK_S):
                code, answer = await ask(relay.source, relay.head + body)
        except TimeoutError as exc:
            raise errors.Timeout(
                f"the cluster's API server did not say within {ASK_S:g} s what you may do: nothing was done"
            ) from exc
        if code == 201:
            return parse_answer(answer)[0]
        if code == 403:
            # Who may not even ask may do nothing of the kind.
            return False
        raise status.BadGateway(f"the cluster's API server answered an access review with status {code}")


def _pass_on(head: ResponseHead, close: bool) -> bytes:
    return rebuild.response_head(head, close=close)
