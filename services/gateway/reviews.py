"""What may I, who am I: SelfSubjectAccessReview, SelfSubjectRulesReview, SelfSubjectReview. Answered from the grants, never stored."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from libs.common import errors
from libs.common.access.principal import Principal
from libs.common.apiserver import surface
from libs.common.apiserver.rights import READ_VERBS, check_caller
from libs.common.resources.meta import GROUP
from libs.common.resources.registry import BY_PLURAL
from services.gateway.answers import answer
from services.gateway.bodies import check_object, read_body
from services.gateway.call import Call
from services.gateway.state import State

_OPEN_PATHS = ("/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version")
_OPEN_URLS = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
]


class Reviews:
    def __init__(self, state: State) -> None:
        self._state = state

    async def access(self, call: Call) -> web.StreamResponse:
        """May I do this? Asked about a kind without a name, list and watch mean "any part of it", as lists are filtered."""
        document = await _read(call, "SelfSubjectAccessReview")
        spec = document.get("spec") or {}
        resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
        if not isinstance(spec, dict) or (resource is None) == (path is None):
            raise errors.BadRequest("spec must hold exactly one of resourceAttributes and nonResourceAttributes")
        given = resource if resource is not None else path
        if not isinstance(given, dict) or not all(
            isinstance(v, str) for k, v in given.items() if not k.endswith("Selector")
        ):
            raise errors.BadRequest("the attributes of the review can't be understood")
        if resource is not None:
            allowed, reason = await self._is_allowed(call.principal, resource)
        else:
            allowed = given.get("verb") in ("get", "head") and _is_open(str(given.get("path", "")))
            reason = "" if allowed else "the hub has no such open path"
        status: dict[str, Any] = {"allowed": allowed}
        if reason:
            status["reason"] = reason
        return answer({**document, "metadata": document.get("metadata") or {}, "status": status}, 201)

    async def _is_allowed(self, principal: Principal, asked: dict[str, str]) -> tuple[bool, str]:
        verb, group, plural = asked.get("verb", ""), asked.get("group", ""), asked.get("resource", "")
        name, sub = asked.get("name", ""), asked.get("subresource", "")
        grants = self._state.grants.current
        try:
            check_caller(principal, "get" if plural == surface.ACCESS_REVIEWS.plural else verb)
        except errors.Denied as exc:
            return False, exc.message
        if "*" in (group, plural):
            return grants.is_allowed(principal, verb, "*", name, subresource=sub), ""
        if group != GROUP:
            row = surface.find_resource(group, plural)
            return row is not None and verb in row.verbs, "" if row else f'the hub does not serve "{plural}.{group}"'
        if plural in (row.plural for row in surface.VIRTUAL):
            return verb == "create" and grants.is_allowed(principal, "get", "users", principal.user), ""
        if plural == "auditevents":
            return grants.reaches(principal, verb, plural), ""
        rtype = BY_PLURAL.get(plural)
        if rtype is None:
            return False, f'the hub does not serve "{plural}.{group}"'
        if plural == "clusters" and sub == surface.REGISTRATION.name:
            return verb == "create" and grants.is_allowed(principal, "create", "registrationtokens", cluster=name), ""
        document = await self._state.find(rtype, name) if name else None
        if document is not None:
            return grants.is_allowed_on(principal, verb, plural, document, sub), ""
        if not name and not sub and verb in READ_VERBS:
            return grants.reaches(principal, verb, plural), ""
        return grants.is_allowed(principal, verb, plural, name, subresource=sub), ""

    async def rules(self, call: Call) -> web.StreamResponse:
        """All that I may. Rights in one cluster or project are listed without that limit, as the lists of the hub are filtered."""
        document = await _read(call, "SelfSubjectRulesReview")
        rules = [rule.to_document() for rule in self._state.grants.current.rules(call.principal)]
        rules.append({"verbs": ["create"], "apiGroups": [GROUP], "resources": [row.plural for row in surface.VIRTUAL]})
        built_in = dict.fromkeys((r.group, r.plural, r.verbs) for r in surface.BUILT_IN)
        rules += [
            {"verbs": list(verbs), "apiGroups": [group], "resources": [plural]} for group, plural, verbs in built_in
        ]
        status = {
            "resourceRules": rules, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": _OPEN_URLS}], "incomplete": False,
        }  # fmt: skip
        return answer({**document, "metadata": document.get("metadata") or {}, "status": status}, 201)

    async def myself(self, call: Call) -> web.StreamResponse:
        """Who am I to the hub?"""
        document = await _read(call, "SelfSubjectReview")
        principal = call.principal
        extra = {"management.herdsman.dev/principal": [principal.principal_id]}
        if principal.token:
            extra["management.herdsman.dev/token"] = [principal.token]
        user = {
            "username": principal.user,
            "uid": principal.user_uid,
            "groups": list(principal.group_ids),
            "extra": extra,
        }
        return answer({**document, "metadata": document.get("metadata") or {}, "status": {"userInfo": user}}, 201)


async def _read(call: Call, kind: str) -> dict[str, Any]:
    """The review in the body, which must be of the kind of the path. Raises BadRequest."""
    document = check_object(await read_body(call.request))
    if document.get("kind", kind) != kind:
        raise errors.BadRequest(
            f"the kind in the data ({document.get('kind')}) does not match the expected kind ({kind})"
        )
    group_version = "/".join(call.request.path.split("/")[2:4])
    if document.get("apiVersion", group_version) != group_version:
        raise errors.BadRequest(
            f"the API version in the data ({document.get('apiVersion')}) does not match the expected API version ({group_version})"
        )
    return {**document, "kind": kind, "apiVersion": group_version}


def _is_open(path: str) -> bool:
    return any(path == open_path or path.startswith(f"{open_path}/") for open_path in _OPEN_PATHS)
