"""How what a client sent is understood: documents, patches, filters and pages, each with a bound. Pure. Raises SCIMException, ValidationError."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from scim2_models import (
    Context,
    InvalidFilterException,
    InvalidPathException,
    InvalidSyntaxException,
    InvalidValueException,
    PatchOp,
    PayloadTooLargeException,
    ResponseParameters,
    ScimFilter,
    TooManyException,
)
from scim2_models.path import CompareOperator, Comparison

from libs.common.access.principal import principal_of
from libs.common.resources.meta import check_label
from services.identity.accounts import is_reserved
from services.identity.scim.model import LENIENT, MAX_RESULTS, Group, User

MAX_USER_BYTES = 32 * 1024
MAX_MEMBERS = 5000
MAX_OPERATIONS = 100
_MAX_QUERY = 2048
M = TypeVar("M", User, Group)
FILTERS: dict[type[Any], tuple[str, ...]] = {
    User: ("id", "externalId", "userName"),
    Group: ("id", "externalId", "displayName"),
}
_GROUP_URN = str(Group.__schema__).lower() + ":"
_ONE_MEMBER = re.compile(r'members\s*\[\s*value\s+eq\s+"([^"\\]{1,256})"\s*\]', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Query:
    """What of a collection is asked for. `attribute` is one of FILTERS, empty = all."""

    attribute: str = ""
    value: str = ""
    start: int = 1
    count: int = MAX_RESULTS


@dataclass(slots=True)
class Members:
    """A change of who is in a group: what is left of those who are in, and who comes in."""

    clear: bool = False
    """Nobody who is in stays, but for those added."""
    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)

    def apply(self, before: set[str]) -> set[str]:
        return ((set() if self.clear else before) - self.removed) | self.added

    def add(self, ids: set[str]) -> None:
        self.added |= ids
        self.removed -= ids
        if len(self.added) > MAX_MEMBERS:
            raise _too_many_members()

    def remove(self, ids: set[str]) -> None:
        self.removed |= ids
        self.added -= ids

    def replace(self, ids: set[str]) -> None:
        self.clear, self.added, self.removed = True, set(), set()
        self.add(ids)


def parse_user(body: Mapping[str, Any], provider: str, context: Context) -> User:
    """A whole user, as for create and replace."""
    _check_size(body)
    user = User.model_validate(body, scim_ctx=context, scim_policy=LENIENT)
    check_user(user, provider)
    return user


def check_user(user: User, provider: str) -> None:
    """What the schema cannot say."""
    if not user.user_name or len(user.user_name) > 256 or not user.user_name.isprintable():
        raise InvalidValueException(detail="userName must be 1 to 256 printable characters")
    _check_reserved(user.user_name)
    if not user.external_id:
        raise InvalidValueException(
            detail="externalId is missing: map the id to it by which the provider names the account when the person signs in"
        )
    _principal(provider, "user", user.external_id, "externalId")
    _check_size(user.model_dump())


def parse_group(body: Mapping[str, Any], context: Context) -> tuple[Group, Members]:
    """A whole group, and who is in it."""
    group = Group.model_validate(
        {name: value for name, value in body.items() if name.lower() != "members"}, scim_ctx=context, scim_policy=LENIENT
    )  # fmt: skip
    members = Members()
    members.replace(_ids(next((value for name, value in body.items() if name.lower() == "members"), None) or []))
    return group, members


def principal_of_group(group: Group, provider: str) -> str:
    """The principal id by which roles are given to a group: what the groups claim of the provider would say."""
    name = group.display_name or ""
    if not name or len(name) > 256 or not name.isprintable():
        raise InvalidValueException(detail="displayName must be 1 to 256 printable characters")
    _check_reserved(name)
    if group.external_id:
        return _principal(provider, "group", group.external_id, "externalId")
    return _principal(provider, "group", name, "displayName")


def parse_patch(model: type[M], body: Mapping[str, Any]) -> tuple[PatchOp[M] | None, Members]:
    """Operations in the forms that Entra ID and Okta send, and what they say of members, which are too many for the general way."""
    operations = next((value for name, value in body.items() if name.lower() == "operations"), None)
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise InvalidSyntaxException(detail="Operations must be a list of objects")
    if len(operations) > MAX_OPERATIONS:
        raise TooManyException(detail=f"a patch has at most {MAX_OPERATIONS} operations")
    members = Members()
    others = (
        [rest for o in operations if (rest := _take_members(o, members)) is not None] if model is Group else operations
    )
    _check_size(others)
    if not others and operations:
        return None, members
    patch = PatchOp[model].model_validate(  # type: ignore[valid-type]
        {"schemas": body.get("schemas"), "Operations": others}, scim_ctx=Context.RESOURCE_PATCH_REQUEST, scim_policy=LENIENT
    )  # fmt: skip
    return patch, members


def parse_query(model: type[Any], query: Mapping[str, str]) -> Query:
    """Filter and page. One comparison with `eq`; nothing else is asked by those who push."""
    start, count = _number(query, "startIndex", 1), _number(query, "count", MAX_RESULTS)
    page = Query(start=max(1, start), count=max(0, min(count, MAX_RESULTS)))
    text = query.get("filter", "")
    if not text:
        return page
    if len(text) > _MAX_QUERY:
        raise InvalidFilterException(detail="the filter is too long")
    node = ScimFilter[model](text).ast  # type: ignore[valid-type]
    if isinstance(node, Comparison) and node.op == CompareOperator.eq and isinstance(node.value, str):
        path = node.attr_path
        of_model = path.uri is None or path.uri.lower() == str(model.__schema__).lower()
        attribute = next((a for a in FILTERS[model] if a.lower() == path.attr.lower()), "")
        if attribute and path.sub_attr is None and of_model:
            return Query(attribute, node.value, page.start, page.count)
    raise InvalidFilterException(detail=f"supported filters are: {', '.join(f'{a} eq' for a in FILTERS[model])}")


def parse_shown(model: type[M], query: Mapping[str, str]) -> ResponseParameters[M]:
    """Which attributes are asked for."""
    given = {name: query[name] for name in ("attributes", "excludedAttributes") if query.get(name)}
    if any(len(text) > _MAX_QUERY for text in given.values()):
        raise InvalidValueException(detail="too many attributes are named")
    return ResponseParameters[model].model_validate(given)  # type: ignore[valid-type]


def is_hidden(name: str, query: Mapping[str, str]) -> bool:
    """Whether an attribute is not asked for, so that it need not be looked up."""
    listed = {part.strip().lower() for part in query.get("attributes", "").split(",") if part.strip()}
    if listed:
        return not any(name in part for part in listed)
    return name in {part.strip().lower() for part in query.get("excludedAttributes", "").split(",")}


def _take_members(operation: dict[str, Any], members: Members) -> dict[str, Any] | None:
    """Note what an operation says of members; the rest of it, None = that was all."""
    given = {name.lower(): value for name, value in operation.items()}
    op, path, value = str(given.get("op", "")).lower(), given.get("path"), given.get("value")
    path = path.strip() if isinstance(path, str) else ""
    path = path[len(_GROUP_URN) :] if path.lower().startswith(_GROUP_URN) else path
    if not path:
        if op not in ("add", "replace") or not isinstance(value, dict):
            return operation
        listed = [name for name in value if name.lower() == "members"]
        for name in listed:
            _change(op, _ids(value[name] or []), members)
        rest = {name: item for name, item in value.items() if name not in listed}
        return {**operation, "value": rest} if rest or not listed else None
    if not path.lower().startswith("members"):
        return operation
    one = _ONE_MEMBER.fullmatch(path)
    if op == "remove" and one:
        members.remove({one[1]})
    elif path.lower() == "members" and op == "remove" and value is None:
        members.replace(set())
    elif path.lower() == "members" and op in ("add", "remove", "replace"):
        if value is None and op == "add":
            raise InvalidValueException(detail="value is required for add operations")
        _change(op, _ids(value or []), members)
    else:
        raise InvalidPathException(
            detail='members are added and replaced as a list, and removed by members[value eq "ID"]'
        )
    return None


def _change(op: str, ids: set[str], members: Members) -> None:
    {"add": members.add, "remove": members.remove, "replace": members.replace}[op](ids)


def _ids(value: Any) -> set[str]:
    """The ids in a list of members. Groups in groups are not taken apart: providers push those who are in the end in it."""
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_MEMBERS:
        raise _too_many_members()
    found = set()
    for item in items:
        named = {name.lower(): part for name, part in item.items()} if isinstance(item, dict) else {"value": item}
        member = named.get("value")
        if not isinstance(member, str) or not 1 <= len(member) <= 256:
            raise InvalidValueException(detail="each of the members needs a value: the id of a user")
        if str(named.get("type") or "User").lower() != "user":
            raise InvalidValueException(detail="only users can be members: push the members of groups in groups")
        found.add(member)
    return found


def _principal(provider: str, kind: Any, immutable_id: str, attribute: str) -> str:
    _check_reserved(immutable_id)
    try:
        return principal_of(check_label(provider), kind, immutable_id)
    except ValueError as exc:
        hint = "" if attribute == "externalId" else ", or map an id of the group to externalId"
        raise InvalidValueException(
            detail=f"{attribute} must be 1 to 256 printable ASCII characters without spaces{hint}"
        ) from exc


def _check_reserved(name: str) -> None:
    if is_reserved(name):
        raise InvalidValueException(detail='names and ids that begin with "system:" are refused')


def _check_size(value: Any) -> None:
    if len(json.dumps(value, default=str)) > MAX_USER_BYTES:
        raise PayloadTooLargeException(detail=f"more than {MAX_USER_BYTES} bytes for one user or group")


def _too_many_members() -> TooManyException:
    return TooManyException(detail=f"a group has at most {MAX_MEMBERS} members")


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InvalidValueException(detail=f"{name} must be a number")
    return int(text)
