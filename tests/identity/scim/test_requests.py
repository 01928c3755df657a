from __future__ import annotations

import pytest
from pydantic import ValidationError
from scim2_models import Context, SCIMException

from services.identity.scim.model import LENIENT, Group, User
from services.identity.scim.requests import (
    MAX_MEMBERS,
    Query,
    parse_group,
    parse_patch,
    parse_query,
    parse_user,
    principal_of_group,
)

PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
JANE = {"schemas": [str(User.__schema__)], "userName": "jane@example.org", "externalId": "42", "active": True}


def user(**more: object) -> User:
    return parse_user({**JANE, **more}, "sso", Context.RESOURCE_CREATION_REQUEST)


def patched(*operations: dict, **more: object) -> User:
    patch, _ = parse_patch(User, {"schemas": [PATCH], "Operations": list(operations)})
    after = user(**more)
    patch.patch(after, LENIENT)
    return after


def members_after(before: set[str], *operations: dict) -> set[str]:
    return parse_patch(Group, {"schemas": [PATCH], "Operations": list(operations)})[1].apply(before)


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "Replace", "path": "active", "value": "False"},
        {"op": "replace", "path": "active", "value": False},
        {"op": "replace", "value": {"active": False}},
        {"op": "Add", "value": {"active": "False"}},
        {"op": "replace", "path": f"{User.__schema__}:active", "value": False},
    ],
)
def test_deactivation_in_every_form_that_is_sent(operation):
    assert patched(operation).active is False


def test_an_address_that_is_not_there_yet_is_added_as_entra_writes_it():
    operation = {"op": "Add", "path": 'emails[type eq "work"].value', "value": "jane@example.org"}
    assert [(e.type, e.value) for e in patched(operation).emails] == [("work", "jane@example.org")]


def test_what_nobody_declared_changes_nothing():
    operations = [
        {"op": "Add", "path": f"{ENTERPRISE}:department", "value": "x"},
        {"op": "Replace", "path": 'roles[primary eq "True"].value', "value": "x"},
        {"op": "Replace", "value": {"title": "x", "name.givenName": "Jane"}},
    ]
    after = patched(*operations)
    assert after.model_dump() == {**user().model_dump(), "name": {"givenName": "Jane"}}
    sent = user(title="x", password="secret", **{ENTERPRISE: {"department": "x"}})
    assert "secret" not in str(sent.model_dump())
    assert "title" not in sent.model_dump()


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "externalId", "value": "43"},
        {"op": "remove", "path": "userName"},
        {"op": "replace", "path": "active", "value": "perhaps"},
        {"op": "replace", "path": "a b["},
        {"op": "shout", "path": "active", "value": True},
        {"op": "replace", "path": "id", "value": "x"},
    ],
)
def test_a_patch_that_cannot_be_is_refused(operation):
    with pytest.raises((SCIMException, ValidationError)):
        patched(operation)


@pytest.mark.parametrize(
    "more",
    [
        {"externalId": None}, {"externalId": ""}, {"externalId": "a b"}, {"externalId": "x" * 257}, {"externalId": "system:node"},
        {"userName": ""}, {"userName": "system:masters"}, {"userName": "ｓystem:x"}, {"userName": "x" * 257}, {"userName": "a\nb"},
        {"displayName": "x" * 40_000}, {"active": "perhaps"},
    ],
)  # fmt: skip
def test_a_user_that_cannot_be_is_refused(more):
    with pytest.raises((SCIMException, ValidationError)):
        user(**more)


@pytest.mark.parametrize(
    ("operations", "after"),
    [
        ([{"op": "Add", "path": "members", "value": [{"$ref": None, "value": "c"}]}], {"a", "b", "c"}),
        ([{"op": "add", "path": "members", "value": {"value": "c", "display": "C"}}], {"a", "b", "c"}),
        ([{"op": "Add", "value": {"members": [{"value": "c", "type": "User"}]}}], {"a", "b", "c"}),
        ([{"op": "add", "path": f"{Group.__schema__}:members", "value": [{"value": "c"}]}], {"a", "b", "c"}),
        ([{"op": "Remove", "path": "members", "value": [{"$ref": None, "value": "a"}]}], {"b"}),
        ([{"op": "remove", "path": 'members[value eq "a"]'}], {"b"}),
        ([{"op": "remove", "path": 'Members[ value EQ "nobody" ]'}], {"a", "b"}),
        ([{"op": "remove", "path": "members"}], set()),
        ([{"op": "replace", "path": "members", "value": [{"value": "c"}]}], {"c"}),
        ([{"op": "replace", "path": "members", "value": []}], set()),
        ([{"op": "remove", "path": "members", "value": []}], {"a", "b"}),
        ([{"op": "remove", "path": "members"}, {"op": "add", "path": "members", "value": [{"value": "a"}]}], {"a"}),
        ([{"op": "add", "path": "members", "value": [{"value": "c"}]}, {"op": "remove", "path": "members"}], set()),
    ],
)
def test_members_come_and_go_in_every_form_that_is_sent(operations, after):
    assert members_after({"a", "b"}, *operations) == after


def test_a_new_name_and_new_members_in_one_operation():
    operation = {"op": "replace", "value": {"id": "g", "displayName": "New", "members": [{"value": "c"}]}}
    patch, members = parse_patch(Group, {"schemas": [PATCH], "Operations": [operation]})
    group = Group(id="g", display_name="Old")
    patch.patch(group, LENIENT)
    assert group.display_name == "New"
    assert members.apply({"a"}) == {"c"}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "members"},
        {"op": "add", "path": "members", "value": [{"display": "nobody"}]},
        {"op": "add", "path": "members", "value": [{"value": "g", "type": "Group"}]},
        {"op": "replace", "path": 'members[value eq "a"]', "value": {"value": "b"}},
        {"op": "remove", "path": 'members[display eq "a"]'},
        {"op": "add", "path": "members", "value": [{"value": str(n)} for n in range(MAX_MEMBERS + 1)]},
        {"op": "add", "value": None},
    ],
)
def test_a_change_of_members_that_cannot_be_is_refused(operation):
    with pytest.raises((SCIMException, ValidationError)):
        members_after({"a"}, operation)


@pytest.mark.parametrize("operations", [None, [], "x", ["x"], [{"op": "remove", "path": "members"}] * 101])
def test_what_is_no_list_of_operations_is_refused(operations):
    with pytest.raises((SCIMException, ValidationError)):
        parse_patch(Group, {"schemas": [PATCH], "Operations": operations})


def test_a_group_is_named_as_the_claim_names_it():
    body = {"schemas": [str(Group.__schema__)], "displayName": "Ops"}
    by_name, _ = parse_group(body, Context.RESOURCE_CREATION_REQUEST)
    by_id, _ = parse_group({**body, "displayName": "Ops team", "externalId": "6f1f"}, Context.RESOURCE_CREATION_REQUEST)
    assert principal_of_group(by_name, "sso") == "sso:group:Ops"
    assert principal_of_group(by_id, "sso") == "sso:group:6f1f"
    for name in ("Ops team", "system:masters", "Ä", ""):
        with pytest.raises(SCIMException):
            principal_of_group(Group(display_name=name), "sso")


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, Query()),
        ({"startIndex": "0", "count": "1000"}, Query(start=1, count=200)),
        ({"startIndex": "-5", "count": "-1"}, Query(start=1, count=0)),
        ({"filter": 'userName eq "Jane"'}, Query("userName", "Jane")),
        ({"filter": f'{User.__schema__}:USERNAME Eq "Jane"'}, Query("userName", "Jane")),
        ({"filter": 'externalId eq "42"', "startIndex": "2"}, Query("externalId", "42", start=2)),
        ({"filter": 'id eq "7"'}, Query("id", "7")),
    ],
)
def test_what_is_asked_for(query, wanted):
    assert parse_query(User, query) == wanted


@pytest.mark.parametrize(
    "text",
    [
        'userName sw "j"', 'userName eq "a" or userName eq "b"', 'not (userName eq "a")', "active eq true", "userName pr", 'displayName eq "x"',
        'emails.value eq "x"', 'emails[type eq "work"]', 'urn:example:Other:userName eq "x"', "userName eq", "(" * 900, "x" * 3000,
    ],
)  # fmt: skip
def test_other_filters_are_refused(text):
    with pytest.raises(SCIMException) as refused:
        parse_query(User, {"filter": text})
    assert refused.value.scim_type == "invalidFilter"
