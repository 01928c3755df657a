"""The method `scim`: who calls → for which provider → what is asked → an answer in SCIM's form, errors of SCIM's kind too. `main` serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from scim2_models import Context, Error, ListResponse, Meta, NotFoundException, Resource, SCIMException

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.bus.base import Message
from libs.common.contracts.messages import ScimCall, ScimReply
from libs.common.crypto.envelope import Verifier
from libs.common.resources.identity import User as HubUser
from libs.common.resources.meta import check_label
from libs.common.store.base import Store
from libs.common.store.objects import read
from services.identity.providers.running import Providers
from services.identity.pushed import is_pushing
from services.identity.scim.groups import Groups
from services.identity.scim.model import CONFIG, RESOURCE_TYPES, SERVICE, Group, User
from services.identity.scim.requests import parse_shown
from services.identity.scim.users import Ask, Users

PROVISION = "provision"
"""The verb on identityproviders that lets a service user push."""
_CONTEXTS = {
    "create": Context.RESOURCE_CREATION_RESPONSE, "replace": Context.RESOURCE_REPLACEMENT_RESPONSE,
    "patch": Context.RESOURCE_PATCH_RESPONSE, "read": Context.RESOURCE_QUERY_RESPONSE, "list": Context.RESOURCE_QUERY_RESPONSE,
}  # fmt: skip
_DETAIL = 500


@dataclass(slots=True)
class Scim:
    store: Store
    providers: Providers
    verifier: Verifier
    grants: HasGrants
    users: Users
    groups: Groups

    async def call(self, call: ScimCall, _message: Message) -> ScimReply:
        """Raises Denied, NotFound (the provider) and what the store raises; what SCIM has words for is answered in them."""
        ask = await self.access(call)
        try:
            return await self._answer(ask)
        except SCIMException as exc:
            return _refuse(exc.to_error())
        except ValidationError as exc:
            return _refuse(Error.from_validation_errors(exc)[0])
        except errors.Invalid as exc:
            return _refuse(Error(status=400, scim_type="invalidValue", detail=exc.message))

    async def access(self, call: ScimCall) -> Ask:
        """For service users with the verb `provision` on the provider: whoever pushes holds what all groups of the provider hold."""
        principal = self.verifier.open(call.identity)
        try:
            name = check_label(call.provider)
        except ValueError as exc:
            raise errors.BadRequest(f'"{call.provider[:63]}" is no provider: the name {exc}') from exc
        if not self.grants.current.is_allowed(principal, PROVISION, "identityproviders", name):
            raise errors.Denied(
                f'cannot push users to the provider "{name}": the right to provision it is missing, or the token is restricted'
            )
        caller = await read(self.store, HubUser, principal.user)
        if not caller.spec.service:
            raise errors.Denied("users are pushed with the token of a service user, not with a person's")
        provider = self.providers.resource(name)
        if provider is None or provider.deleting:
            raise errors.not_found("identityproviders.management.herdsman.dev", name)
        if provider.spec.oidc is None:
            raise errors.BadRequest(
                f'SCIM is for providers of type oidc: "{name}" is of type {provider.spec.type}, whose users and groups the hub reads itself'
            )
        if not is_pushing(provider):
            raise errors.Denied(f'the provider "{name}" does not take pushed users: set spec.oidc.scim to true')
        return Ask(provider, caller.name, call)

    async def _answer(self, ask: Ask) -> ScimReply:
        call = ask.call
        if call.kind == "Users":
            return await self._resources(ask, self.users, User)
        if call.kind == "Groups":
            return await self._resources(ask, self.groups, Group)
        return _describe(ask)

    async def _resources(self, ask: Ask, of: Any, model: Any) -> ScimReply:
        """`of` is Users or Groups, which have the same methods, and `model` what they give."""
        call, shown = ask.call, parse_shown(model, ask.call.query)
        if call.operation == "delete":
            await of.delete(ask)
            return ScimReply(status=204)
        if call.operation == "patch" and model is Group:
            # Without a body: with all its members it would be as long as they are many, for each one that comes in.
            await of.patch(ask, call.body or {})
            return ScimReply(status=204)
        if call.operation == "list":
            total, start, page = await of.find(ask)
            listed: Any = ListResponse[model](
                total_results=total, start_index=start, items_per_page=len(page), resources=page
            )
            return _reply(200, listed.model_dump(scim_ctx=_CONTEXTS["list"], response_parameters=shown))
        if call.operation == "read":
            found = await of.get(ask)
        elif call.operation == "create":
            found = await of.create(ask, call.body or {})
        elif call.operation == "replace":
            found = await of.replace(ask, call.body or {})
        else:
            found = await of.patch(ask, call.body or {})
        document = found.model_dump(scim_ctx=_CONTEXTS[call.operation], response_parameters=shown)
        return _reply(201 if call.operation == "create" else 200, document)


def _describe(ask: Ask) -> ScimReply:
    """The discovery documents (RFC 7644 section 4), each a list but for the configuration."""
    call = ask.call
    if call.kind == "ServiceProviderConfig":
        meta = Meta(resource_type="ServiceProviderConfig", location=f"{call.base_url}/ServiceProviderConfig")
        return _reply(200, CONFIG.model_copy(update={"meta": meta}).model_dump(scim_ctx=_CONTEXTS["read"]))
    found: tuple[Resource[Any], ...] = RESOURCE_TYPES if call.kind == "ResourceTypes" else SERVICE.schemas
    kind = call.kind.removesuffix("s")
    documents = []
    for resource in found:
        meta = Meta(resource_type=kind, location=ask.address(call.kind, str(resource.id)))
        documents.append(resource.model_copy(update={"meta": meta}).model_dump(scim_ctx=_CONTEXTS["read"]))
    if call.query.get("filter"):
        # RFC 7644 section 4: so that nobody takes a part for the whole.
        raise errors.Denied("what the service says of itself cannot be filtered")
    if call.operation == "list":
        return _reply(200, {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": len(documents), "startIndex": 1,
            "itemsPerPage": len(documents), "Resources": documents,
        })  # fmt: skip
    one = next((d for d in documents if d["id"].lower() == call.id.lower()), None)
    if one is None:
        raise NotFoundException(detail=f"there is no {kind} of this id")
    return _reply(200, one)


def _reply(status: int, document: dict[str, Any]) -> ScimReply:
    return ScimReply(status=status, document=document)


def _refuse(error: Error) -> ScimReply:
    error.detail = " ".join((error.detail or "").split())[:_DETAIL]
    return ScimReply(status=error.status or 400, document=error.model_dump())
