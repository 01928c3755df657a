from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from libs.common import errors
from libs.common.access.roles import resolve_roles
from libs.common.resources import codec
from libs.common.resources.access import PolicyRule, RoleTemplate
from libs.common.resources.meta import GROUP
from libs.common.resources.registry import RESOURCE_TYPES
from libs.common.store.memory import MemoryStore
from libs.common.store.objects import read
from services.authz import rules
from services.authz.builtins import ensure_builtins, render_builtins
from services.authz.strategies import RoleTemplateStrategy
from services.identity.scim.service import PROVISION
from tests.access import made
from tests.access.hub import running_hub

ADA, BOB = made.user("ada"), made.user("bob")
TABLE = yaml.safe_load((Path(__file__).parent / "builtins.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_built_in_roles_allow_inside_clusters(name):
    held = resolve_roles(render_builtins())[name].rule_set
    for expected in ("may", "may_not"):
        for text in TABLE[name][expected]:
            verb, target = text.split()
            resource, _, group = target.partition(".")
            plural, _, sub = resource.partition("/")
            assert held.allows(verb, group, plural, sub, "x") is (expected == "may"), f"{name} {expected} {text}"


def test_every_built_in_role_is_valid_and_in_the_table():
    templates = {t.name: t for t in render_builtins()}
    for template in templates.values():
        assert rules.check_template(template, templates) == []
        assert template.spec.built_in
    in_clusters = {name for name, t in templates.items() if t.spec.scope != "global"}
    assert in_clusters == TABLE.keys()


async def test_built_ins_are_made_brought_back_and_otherwise_left_alone(clock):
    store = MemoryStore("authz")
    await ensure_builtins(store, clock)
    first = await read(store, RoleTemplate, "cluster-viewer")
    await ensure_builtins(store, clock)
    assert (
        await read(store, RoleTemplate, "cluster-viewer")
    ).metadata.resource_version == first.metadata.resource_version
    bent = first.model_copy(deep=True)
    bent.spec.rules = []
    await store.update("roletemplates.cluster-viewer", codec.encode(bent), int(first.metadata.resource_version))
    await ensure_builtins(store, clock)
    again = await read(store, RoleTemplate, "cluster-viewer")
    assert again.spec == first.spec
    assert again.uid == first.uid


async def test_a_custom_role_with_a_built_in_name_is_never_overwritten(clock):
    store = MemoryStore("authz")
    await store.create("roletemplates.admin", codec.encode(made.role("admin", "global")))
    await ensure_builtins(store, clock)
    stored = await read(store, RoleTemplate, "admin")
    assert stored.spec.hub_rules == []
    told = stored.status.condition("NameTaken")
    assert told is not None
    assert "make it again under another one" in told.message
    await ensure_builtins(store, clock)
    again = await read(store, RoleTemplate, "admin")
    assert again.metadata.resource_version == stored.metadata.resource_version, "told once"


def test_a_read_only_person_sees_the_hub_and_neither_the_audit_log_nor_recordings():
    held = resolve_roles(render_builtins())["read-only"].hub_set
    for kind in RESOURCE_TYPES:
        assert held.allows("watch", GROUP, kind.plural), kind.plural
        assert not any(held.allows(v, GROUP, kind.plural) for v in ("create", "update", "patch", "delete"))
        assert not held.allows("update", GROUP, kind.plural, "status")
    for unseen in (("auditevents", ""), ("sessionrecordings", ""), ("clusters", "registration")):
        assert not any(held.allows(verb, GROUP, *unseen) for verb in ("get", "list", "watch", "create"))
    assert resolve_roles(render_builtins())["read-only"].rules == ()


@pytest.mark.parametrize(
    ("scope", "field", "verbs", "ok"),
    [
        ("cluster", "rules", ["gett"], False),
        ("cluster", "rules", ["Get"], False),
        ("cluster", "rules", ["read"], False),
        ("cluster", "rules", ["get", "post"], False),
        ("cluster", "rules", ["*"], True),
        ("cluster", "rules", ["use", "bind", "escalate", "impersonate", "approve", "sign", "attest"], True),
        ("cluster", "rules", ["impersonate:user-info", "impersonate-on:user-info:list"], True),
        ("cluster", "rules", ["impersonate:"], False),
        ("cluster", "hub_rules", ["use"], False),
        ("global", "hub_rules", ["deletecollection"], True),
        ("global", "hub_rules", ["updat"], False),
        ("global", "hub_rules", [PROVISION], True),
        ("cluster", "rules", [PROVISION], False),
    ],
    ids=str,
)
def test_a_verb_that_nobody_asks_about_is_refused(scope, field, verbs, ok):
    template = made.role("r", scope)
    resources = made.hub_rule if field == "hub_rules" else made.rule
    getattr(template.spec, field).append(PolicyRule.model_validate(resources(" ".join(verbs), "nodes")))
    causes = rules.check_template(template, {})
    assert (causes == []) is ok
    for cause in causes:
        assert ".verbs[" in cause.field
        assert "there is no such verb" in cause.message


def test_verbs_on_urls_are_those_of_http():
    for verbs, ok in ((["get", "post", "head"], True), (["list"], False)):
        template = made.role("r", "cluster")
        template.spec.rules.append(PolicyRule(verbs=verbs, non_resource_urls=["/healthz"]))
        assert (rules.check_template(template, {}) == []) is ok


@asynccontextmanager
async def running(clock):
    async with running_hub(clock) as hub:
        await ensure_builtins(hub.stores["authz"], clock)
        editor = made.role("editor", "global", hub=[made.hub_rule("*", "roletemplates")])
        await hub.put(ADA, BOB, editor, made.cluster("east"), made.binding(BOB, "editor", everywhere=True))
        await hub.put(made.binding(ADA, "admin", everywhere=True), made.binding(ADA, "cluster-owner", everywhere=True))
        strategy = RoleTemplateStrategy(hub.objects(RoleTemplate), hub.live.bindings)
        yield hub, hub.writer("authz", {"roletemplates": strategy})


READER = made.role("reader", "cluster", rules=[made.rule("get", "pods")])


def vast(side: int) -> list[dict]:
    """One short rule of `side`³ rights."""
    return [{"verbs": ["get"] * side, "apiGroups": ["a"] * side, "resources": ["r"] * side}]


@pytest.mark.parametrize(
    ("role", "why"),
    [
        (made.role("r", "global", rules=[made.rule("get", "pods")]), "on the hub alone"),
        (made.role("r", "cluster", rules=[{"verbs": ["get"], "resources": ["pods"]}]), "name the API group"),
        (made.role("r", "cluster", rules=[{"verbs": [""], "apiGroups": [""], "resources": ["pods"]}]), "empty text"),
        (made.role("r", "cluster", rules=[{"verbs": ["get"]}]), "needs resources or nonResourceURLs"),
        (made.role("r", "cluster", rules=[{"verbs": ["get"], "nonResourceURLs": ["healthz"]}]), "must be a path"),
        (made.role("r", "project", rules=[{"verbs": ["get"], "nonResourceURLs": ["/x"]}]), "namespaces only"),
        (made.role("r", "cluster", hub=[made.rule("get", "clusters")]), "the hub's objects are in"),
        (made.role("r", "cluster", hub=[made.hub_rule("get", "pods")]), "no such resource"),
        (made.role("r", "cluster", inherits=["nobody"]), "Not found"),
        (made.role("r", "cluster", inherits=["admin"]), "it has scope global"),
        (made.role("r", "cluster", inherits=["r"]), "inherit itself"),
        (made.role("a.b", "cluster"), "RFC 1123 label"),
        (made.role("r", "cluster", rules=[made.rule("get", "po\x1b[2Jds")]), r"resources: .* control characters"),
        (made.role("r", "cluster", rules=[made.rule("get", "pods", "a\nb")]), r"resourceNames: .* control characters"),
        (made.role("r", "cluster", rules=vast(5000)), "would have 125000000000 rights"),
        (made.role("r", "global", hub=[made.hub_rule("get " * 6000, "users clusters")]), "would have 12000 rights"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_roles_that_make_no_sense_are_refused(clock, role, why):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Invalid, match=why):
            await hub.write(writer, ADA, "create", role)


async def test_a_role_and_what_it_inherits_are_not_too_large_together(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", made.role("half", "cluster", rules=vast(18)))
        await hub.write(writer, ADA, "create", made.role("heir", "cluster", inherits=["half"], rules=vast(15)))
        with pytest.raises(errors.Invalid, match='role "third" would have'):
            await hub.write(writer, ADA, "create", made.role("third", "cluster", inherits=["heir"], rules=vast(12)))
        body = {"spec": {"rules": vast(21)}}
        with pytest.raises(errors.Invalid, match='role "heir" would have'):
            await hub.write(writer, ADA, "patch", "half", plural="roletemplates", body=body)


async def test_a_cycle_over_several_roles_is_refused(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", made.role("a", "cluster"))
        await hub.write(writer, ADA, "create", made.role("b", "cluster", inherits=["a"]))
        with pytest.raises(errors.Invalid, match="a → b → a"):
            await hub.write(writer, ADA, "patch", "a", plural="roletemplates", body={"spec": {"inherits": ["b"]}})


async def test_built_ins_are_locked(clock):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Invalid, match="built-in"):
            await hub.write(writer, ADA, "patch", "admin", plural="roletemplates", body={"spec": {"builtIn": False}})
        with pytest.raises(errors.Invalid, match="built-in"):
            await hub.write(writer, ADA, "delete", "cluster-viewer", plural="roletemplates")
        forged = made.role("forged", "cluster")
        forged.spec.built_in = True
        with pytest.raises(errors.Invalid, match="built-in"):
            await hub.write(writer, ADA, "create", forged)


async def test_editing_a_bound_role_gives_no_more_than_the_editor_holds(clock):
    """The way round the check on bindings: bind a weak role, then make it strong, itself or by what it inherits."""
    strong = {"spec": {"rules": [made.rule("*", "*")]}}
    async with running(clock) as (hub, writer):
        heir = made.role("heir", "cluster", inherits=["reader"])
        await hub.write(writer, BOB, "create", READER)
        await hub.write(writer, BOB, "create", heir)
        await hub.write(
            writer, BOB, "patch", "reader", plural="roletemplates", body={"spec": {"description": "unbound"}}
        )
        await hub.put(made.binding(BOB, "heir", cluster="east"))
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await hub.write(writer, BOB, "patch", "reader", plural="roletemplates", body=strong)
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await hub.write(
                writer, BOB, "patch", "heir", plural="roletemplates", body={"spec": {"inherits": ["cluster-owner"]}}
            )
        await hub.write(
            writer, BOB, "patch", "reader", plural="roletemplates", body={"spec": {"displayName": "Reader"}}
        )
        await hub.write(writer, ADA, "patch", "reader", plural="roletemplates", body=strong)


async def test_a_role_that_is_used_stays_and_its_scope_too(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", READER)
        await hub.write(writer, ADA, "create", made.role("heir", "cluster", inherits=["reader"]))
        with pytest.raises(errors.Conflict, match="inherited by roles: heir"):
            await hub.write(writer, ADA, "delete", "reader", plural="roletemplates")
        bound = made.binding(BOB, "heir", cluster="east")
        await hub.put(bound)
        with pytest.raises(errors.Conflict, match="bound by"):
            await hub.write(writer, ADA, "delete", "heir", plural="roletemplates")
        with pytest.raises(errors.Invalid, match="scope can't be changed"):
            await hub.write(writer, ADA, "patch", "heir", plural="roletemplates", body={"spec": {"scope": "project"}})
        await hub.delete(bound)
        await hub.write(writer, ADA, "delete", "heir", plural="roletemplates")
        await hub.write(writer, ADA, "delete", "reader", plural="roletemplates")


async def test_no_own_role_takes_the_name_of_a_built_in_one(clock):
    async with running(clock) as (hub, writer):
        await hub.delete(await hub.get(RoleTemplate, "read-only"))
        for name in ("admin", "read-only"):
            with pytest.raises(errors.Invalid, match=r"metadata.name: Duplicate value.*a built-in role has this name"):
                await hub.write(writer, ADA, "create", made.role(name, "global"))
