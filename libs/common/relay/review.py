"""May the caller be whom it wishes to be? The target cluster's own answer, one question for each attribute, asked as the caller.

`Reviewed` stands between a relay and its source, because a route may not wait: the connection for the call is given only after the
API server, the same that the call goes to, has allowed everything. Nothing is remembered between calls: a right in one cluster can't
count in another, and one that is taken away in a cluster is gone with the next call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from libs.common import errors
from libs.common.relay import impersonation, rebuild, status
from libs.common.relay.ask import ask
from libs.common.relay.decision import Source
from libs.common.relay.head import parse_request
from libs.common.relay.impersonation import Attribute, Wish
from libs.common.relay.pool import Pool
from libs.common.relay.upstream import Upstream

TIMEOUT_S = 10.0
"""For all questions about one call."""
_PATH = b"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_ALLOWED = frozenset({b"accept", b"content-type", b"user-agent"})


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Asks one API server as one caller. `identity` is the caller's ready block, `own` the credential's line."""

    pool: Pool
    host: bytes
    own: Sequence[bytes]
    identity: bytes
    caller: str

    async def check(self, wish: Wish) -> None:
        """Raises Denied for the first attribute that the cluster does not allow, Unavailable and its like when it gives no answer."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                for attribute in impersonation.attributes_of(wish):
                    await self._check_one(attribute)
        except TimeoutError as exc:
            raise errors.Timeout(
                f"the cluster's API server did not say within {TIMEOUT_S:g} s who may be impersonated: nothing was done"
            ) from exc

    async def _check_one(self, attribute: Attribute) -> None:
        code, body = await ask(self.pool, self._request(attribute))
        if code == 403:
            raise errors.Denied(
                f'the cluster does not let "{self.caller}" ask what it may do, so nobody can be impersonated: selfsubjectaccessreviews '
                "must be allowed there, which ClusterRole system:basic-user, bound to system:authenticated, does"
            )
        if code != 201:
            raise status.BadGateway(
                f"the cluster's API server answered an access review with status {code}: nobody can be impersonated"
            )
        allowed, reason = parse_answer(body)
        if not allowed:
            raise errors.Denied(_explain(self.caller, attribute, reason), kind=attribute.resource, name=attribute.name)

    def _request(self, attribute: Attribute) -> bytes:
        body = render_review(attribute)
        head = parse_request(
            b"POST " + _PATH + b" HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
            b"User-Agent: herdsman-impersonation\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        built = rebuild.request_head(
            head, head.target, allowed=_ALLOWED, host=self.host, own=self.own, identity=self.identity
        )
        rebuild.check_identity(built, self.identity)
        return built + body


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A `decision.Source`: that of the call, once the wish is allowed."""

    source: Source
    reviewer: Reviewer
    wish: Wish

    def acquire(self) -> Upstream | None:
        return None

    async def open(self) -> Upstream:
        await self.reviewer.check(self.wish)
        return self.source.acquire() or await self.source.open()


def render_review(attribute: Attribute) -> bytes:
    """The SelfSubjectAccessReview for one attribute, with the fields that kube-apiserver's impersonation filter fills in."""
    asked = {
        "verb": "impersonate", "group": attribute.group, "version": "v1", "resource": attribute.resource,
        "subresource": attribute.subresource, "namespace": attribute.namespace, "name": attribute.name,
    }  # fmt: skip
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
    }
    return json.dumps(review, separators=(",", ":")).encode()


def parse_answer(body: bytes) -> tuple[bool, str]:
    """Whether an access review says yes, and why. Raises BadGateway for what is none."""
    try:
        found = json.loads(body)["status"]
        allowed, denied = found.get("allowed"), found.get("denied", False)
        reason = str(found.get("reason") or found.get("evaluationError") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise status.BadGateway("the cluster's API server answered an access review with something else") from exc
    return allowed is True and denied is False, " ".join(reason.split())[:500]


def _explain(caller: str, attribute: Attribute, reason: str) -> str:
    """In the words of an API server that is asked directly."""
    resource = f"{attribute.resource}/{attribute.subresource}" if attribute.subresource else attribute.resource
    scope = f'in the namespace "{attribute.namespace}"' if attribute.namespace else "at the cluster scope"
    text = (
        f'{resource} "{attribute.name}" is forbidden: User "{caller}" cannot impersonate resource "{resource}" '
        f'in API group "{attribute.group}" {scope}'
    )
    return f"{text}: {reason}" if reason else text
