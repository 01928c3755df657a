"""AccessReview at the gateway: the chain of reasons, what would change, and nothing that the caller could not see otherwise."""

from __future__ import annotations

import pytest

from libs.common.resources.identity import Group
from libs.common.resources.projects import Project
from tests.access import made
from tests.gateway.support import OURS, Hub, make_binding, make_principal, make_user, real_monotonic

REVIEWS = f"{OURS}/accessreviews"
SECRETS = {"verb": "get", "resource": "secrets", "cluster": "c1"}
READER = made.role("reader", "cluster", rules=[made.rule("get", "secrets")])
MEMBER = made.role("member", "project", rules=[made.rule("create", "pods")], inherits=["base"])
BASE = made.role("base", "project", rules=[made.rule("get", "secrets", "db")])


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        for resource in (READER, MEMBER, BASE, make_user("eve"), await_project(), await_group("eve")):
            await running.put(resource)
        for binding in (
            make_binding("bob", "reader", {"cluster": "c1", "clusterUid": "uid-c1"}),
            made.binding("local:group:g1", "reader", name="team-reader", cluster="c1"),
            made.binding("ldap:group:ops", "reader", name="ops-reader", cluster="c2"),
            made.binding("local:user:uid-eve", "member", name="eve-member", project="shop"),
        ):
            await running.put(binding)
        yield running


def await_project() -> Project:
    namespaces = [{"cluster": "c1", "namespace": "shop"}]
    return Project.model_validate({"metadata": made.meta("shop"), "spec": {"namespaces": namespaces}})


def await_group(*members: str) -> Group:
    return Group.model_validate({
        "metadata": made.meta("team", "g1"), "spec": {"members": list(members)}, "status": {"principalId": "local:group:g1"},
        "private": {"uids": {name: f"uid-{name}" for name in members}},
    })  # fmt: skip


async def review(hub, by="root", **spec):
    status, document = await hub.call("POST", REVIEWS, {"spec": spec}, by=by)
    assert status == 201, document
    return document["status"]


def short(paths):
    return [(p["user"], p["binding"], p["group"], p["where"]) for p in paths]


async def test_who_can_read_secrets_and_by_what(hub):
    answer = await review(hub, **SECRETS, namespace="shop", name="db")
    assert short(answer["paths"]) == [
        ("bob", "bob-reader", "", "cluster c1"),
        ("eve", "team-reader", "team", "cluster c1"),
        ("eve", "eve-member", "", "project shop"),
    ]
    assert answer["paths"][2]["inherits"] == ["member", "base"]
    assert answer["incomplete"] is False
    assert [p["user"] for p in (await review(hub, **SECRETS, namespace="shop", name="x"))["paths"]] == ["bob", "eve"]
    assert [p["user"] for p in (await review(hub, **SECRETS, namespace="other", name="db"))["paths"]] == ["bob", "eve"]


async def test_who_reaches_a_secret_in_a_roundabout_way_is_told_apart(hub):
    answer = await review(hub, verb="reach", resource="secrets", cluster="c1", namespace="shop", name="x")
    assert [(p["user"], p["how"], p["rights"]) for p in answer["paths"]] == [
        ("bob", "", ["get secrets"]), ("eve", "", ["get secrets"]), ("eve", "runs pods that mount it", ["create pods"]),
    ]  # fmt: skip


async def test_of_a_providers_group_the_group_itself_is_told_for_some_have_not_come_yet(hub):
    answer = await review(hub, **{**SECRETS, "cluster": "c2"})
    assert short(answer["paths"]) == [("", "ops-reader", "ldap:group:ops", "cluster c2")]
    assert any("last signed in" in note for note in answer["notes"])


async def test_a_user_may_ask_why_they_can_and_learns_nothing_of_others(hub):
    mine = await review(hub, by="eve", user="eve")
    assert {p["binding"] for p in mine["paths"]} == set() | {"eve-member"}
    in_group = make_principal("eve", group_ids=["local:group:g1"])
    mine = await review(hub, by=in_group, user="eve")
    assert {p["binding"] for p in mine["paths"]} == {"eve-member", "team-reader"}
    assert mine["incomplete"] is False
    everybody = await review(hub, by=in_group, **SECRETS)
    assert {p["user"] for p in everybody["paths"]} == {"eve"}
    assert everybody["incomplete"] is True
    assert (
        (await review(hub, by="eve", user="bob"))["paths"]
        == (await review(hub, by="eve", user="nobody"))["paths"]
        == []
    )


async def test_who_owns_the_cluster_sees_its_bindings_but_not_who_is_in_a_group(hub):
    answer = await review(hub, by="ann", **SECRETS)
    assert short(answer["paths"]) == [
        ("bob", "bob-reader", "", "cluster c1"),
        ("", "team-reader", "local:group:g1", "cluster c1"),
    ]
    assert answer["incomplete"] is True, "bindings for every cluster, and for projects, are not hers to see"


async def test_a_role_of_a_thousand_million_rights_is_not_even_thought_of(hub):
    many = ["x"] * 1000
    vast = {"scope": "cluster", "rules": [{"verbs": many, "apiGroups": many, "resources": many}]}
    spec = {"whatIf": {"roles": [{"name": "vast", "spec": vast}]}}
    status, document = await hub.call("POST", REVIEWS, {"spec": spec}, by="eve")
    assert status == 422, document
    assert "at most 10000 are possible" in document["message"]


async def test_a_cluster_that_the_caller_cannot_see_is_absent(hub):
    status, there = await hub.call("POST", REVIEWS, {"spec": {**SECRETS, "cluster": "c2"}}, by="bob")
    other, absent = await hub.call("POST", REVIEWS, {"spec": {**SECRETS, "cluster": "cx"}}, by="bob")
    assert status == other == 404
    assert there["message"].replace("c2", "cx") == absent["message"]


async def test_what_would_change(hub):
    change = {"add": [{"user": "eve", "role": "reader", "scope": {"cluster": "c2"}}], "remove": ["bob-reader"]}
    answer = await review(hub, verb="get", resource="secrets", whatIf=change)
    assert short(answer["gained"]) == [("eve", "what-if-0", "", "cluster c2")]
    assert short(answer["lost"]) == [("bob", "bob-reader", "", "cluster c1")]
    assert answer["paths"] == []
    again = {"add": [{"user": "bob", "role": "reader", "scope": {"global": True}}], "remove": ["bob-reader"]}
    answer = await review(hub, **SECRETS, whatIf=again)
    assert (answer["gained"], answer["lost"]) == ([], []), "the same right by another binding"
    wider = {"roles": [{"name": "base", "spec": {"scope": "project", "rules": [made.rule("get", "pods")]}}]}
    answer = await review(hub, whatIf=wider)
    assert answer["roles"] == [
        {"role": "base", "gained": ["get pods"], "lost": ['get secrets "db"']},
        {"role": "member", "gained": ["get pods"], "lost": ['get secrets "db"']},
    ]
    assert (await hub.call("GET", f"{OURS}/roletemplatebindings/bob-reader"))[0] == 200, "nothing of it is done"


async def test_of_a_binding_that_names_an_id_alone_the_id_is_told(hub):
    await hub.put(made.binding("local:user:uid-eve", "reader", name="eve-reader", cluster="c1"))
    answer = await review(hub, by="ann", **SECRETS)
    assert ("", "local:user:uid-eve") in [(p["user"], p["principal"]) for p in answer["paths"]]
    assert ("eve", "eve-reader") in [(p["user"], p["binding"]) for p in (await review(hub, **SECRETS))["paths"]]


async def test_a_binding_to_an_earlier_project_is_not_shown_to_those_of_today(hub):
    lead = made.role("lead", "project", hub=[made.hub_rule("get", "roletemplatebindings")])
    await hub.put(lead)
    await hub.put(made.binding("local:user:uid-bob", "lead", name="bob-lead", project="shop"))
    earlier = made.binding("local:user:uid-ann", "member", name="earlier", project="shop", projectUid="another")
    await hub.put(earlier)
    change = {"remove": ["eve-member"]}
    answer = await review(hub, by="bob", project="shop", whatIf=change)
    assert {p["binding"] for p in answer["lost"]} == {"eve-member"}
    assert (await hub.call("POST", REVIEWS, {"spec": {"whatIf": {"remove": ["earlier"]}}}, by="bob"))[0] == 404
    added = {"add": [{"user": "bob", "role": "member", "scope": {"project": "shop"}}]}
    assert [p["where"] for p in (await review(hub, whatIf=added))["gained"]] == ["project shop"]


async def test_a_stranger_cannot_try_out_which_users_projects_and_bindings_there_are(hub):
    async def told(change):
        status, document = await hub.call("POST", REVIEWS, {"spec": {"whatIf": change}}, by="bob")
        return status, document["message"]

    def add(**given):
        return {"add": [{"role": "reader", "scope": {"cluster": "c1"}, **given}]}

    for there, absent, name in (
        (add(user="eve"), add(user="nix"), "eve"),
        (add(principal="local:user:x", scope={"project": "shop"}), add(principal="local:user:x", scope={"project": "nix"}), "shop"),
        ({"remove": ["team-reader"]}, {"remove": ["nix"]}, "team-reader"),
        (add(user="bob", scope={"cluster": "c2"}), add(user="bob", scope={"cluster": "nix"}), "c2"),
    ):  # fmt: skip
        one, other = await told(there), await told(absent)
        assert one[0] == other[0] == 404
        assert one[1].replace(f'"{name}"', '"nix"') == other[1]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"verb": "get"}, "spec.resource"),
        ({"resource": "pods"}, "spec.verb"),
        ({"namespace": "shop"}, "spec.namespace"),
        ({"name": "x"}, "spec.name"),
        ({"user": "bob", "principal": "local:user:x"}, "spec.principal"),
        ({"verb": "reach", "resource": "pods"}, "spec.verb"),
        ({"verb": "get", "resource": "pods", "project": "shop"}, "spec.project"),
        ({"limit": 0}, "spec.limit"),
        ({"whatIf": {"add": [{"user": "bob", "role": "nix", "scope": {"cluster": "c1"}}]}}, "spec.whatIf.add[0]"),
        ({"whatIf": {"add": [{"role": "reader", "scope": {"cluster": "c1"}}]}}, "spec.whatIf.add[0].principal"),
    ],
)
async def test_a_question_without_an_answer_is_refused_with_the_field(hub, spec, field):
    status, document = await hub.call("POST", REVIEWS, {"spec": spec})
    assert status == 422, document
    assert field in [cause["field"] for cause in document["details"]["causes"]]


async def test_the_limit_says_what_it_left_out(hub):
    answer = await review(hub, **SECRETS, limit=1)
    assert (len(answer["paths"]), answer["omitted"]) == (1, 2)


async def test_a_review_reads_and_so_is_for_read_only_tokens_but_not_for_those_of_some_clusters(hub):
    assert (await review(hub, by=make_principal("root", read_only=True), **SECRETS))["paths"]
    assert (await hub.call("POST", REVIEWS, {}, by=make_principal("root", clusters=["c1"])))[0] == 403
    assert (await hub.call("POST", REVIEWS, {}, by=make_principal("ghost")))[0] == 403
    assert (await hub.call("GET", REVIEWS))[0] == 404


async def test_everybody_may_see_roles(hub):
    answer = await review(hub, verb="get", apiGroup="management.herdsman.dev", resource="roletemplates")
    assert answer["everybody"] is True
    answer = await review(hub, verb="get", apiGroup="management.herdsman.dev", resource="clusters", name="c1")
    assert {p["user"] for p in answer["paths"]} == {"root", "ann", "bob", "eve"}


async def test_what_changed_meanwhile_is_in_the_next_review(hub):
    assert len((await review(hub, **SECRETS))["paths"]) == 3
    await hub.remove("roletemplatebindings", "bob-reader")
    await hub.put(await_group())
    assert short((await review(hub, **SECRETS))["paths"]) == [("eve", "eve-member", "", "project shop")]
