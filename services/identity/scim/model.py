"""What this service speaks: its User and Group, and the three documents by which it describes itself (RFC 7643 sections 4 to 7).

Only what the hub keeps is declared; clients read that in /Schemas, and what else they send is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from scim2_models import (
    URN,
    AuthenticationScheme,
    Bulk,
    CaseExact,
    ChangePassword,
    ComplexAttribute,
    ETag,
    Filter,
    Mutability,
    Pagination,
    Patch,
    Reference,
    Required,
    Resource,
    ResourceType,
    ScimPolicy,
    ScimProvider,
    ServiceProviderConfig,
    Sort,
    Uniqueness,
)

MAX_RESULTS = 200


class Name(ComplexAttribute):
    formatted: str | None = None
    family_name: str | None = None
    given_name: str | None = None


class Email(ComplexAttribute):
    value: str | None = None
    type: str | None = Field(None, examples=["work", "home", "other"])
    primary: bool | None = None


class UserGroup(ComplexAttribute):
    value: Annotated[str | None, Mutability.read_only] = None
    ref: Annotated[Reference["Group"] | None, Mutability.read_only] = Field(  # noqa: UP037 - a name of SCIM, not of Python
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    display: Annotated[str | None, Mutability.read_only] = None


class User(Resource[Any]):
    """A person's account at the provider."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    external_id: Annotated[str | None, Required.true, Mutability.immutable, CaseExact.true, Uniqueness.server] = Field(
        None, description="The id of the account that a sign-in shows: the claim sub, or oid. It never changes."
    )
    user_name: Annotated[str | None, Required.true, Uniqueness.server] = Field(
        None, description="The name that the person signs in with at the provider."
    )
    name: Name | None = None
    display_name: str | None = None
    emails: list[Email] | None = None
    active: bool | None = Field(None, description="False: the account counts for nothing and its sign-ins end.")
    groups: Annotated[list[UserGroup] | None, Mutability.read_only] = None


class Member(ComplexAttribute):
    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    ref: Annotated[Reference[User] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )


class Group(Resource[Any]):
    """A group of the provider; its members are users that were pushed."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true] = None
    members: list[Member] | None = None


LENIENT = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore, remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)  # fmt: skip
"""As Entra ID and Okta speak: attributes that nobody declared, `remove` with a value, a path to an e-mail address that is not there yet."""

CONFIG = ServiceProviderConfig(
    patch=Patch(supported=True), bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
    filter=Filter(supported=True, max_results=MAX_RESULTS), change_password=ChangePassword(supported=False), sort=Sort(supported=False),
    etag=ETag(supported=False),
    authentication_schemes=[
        AuthenticationScheme(
            type=AuthenticationScheme.Type.oauthbearertoken, name="Bearer token", description="A token of a service user of the hub", primary=True,
        )
    ],
    pagination=Pagination(
        cursor=False, index=True, default_pagination_method=Pagination.DefaultPaginationMethod.index, default_page_size=MAX_RESULTS,
        max_page_size=MAX_RESULTS,
    ),
)  # fmt: skip
RESOURCE_TYPES = (ResourceType.from_resource(User), ResourceType.from_resource(Group))
SERVICE = ScimProvider([User, Group], RESOURCE_TYPES, CONFIG, LENIENT)
