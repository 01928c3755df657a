from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from libs.common import errors
from libs.common.reconcile import DONE, After
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.identity import User
from libs.common.resources.registry import BY_PLURAL
from services.authz.binding_strategy import BindingStrategy
from services.authz.bootstrap import AdminBootstrap
from services.authz.builtins import ensure_builtins
from services.authz.reconciler import KEEP_EXPIRED_S, BindingReconciler
from tests.access import made
from tests.access.hub import running_hub

ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")


def new(role: str, scope: dict, name: str = "b", **spec) -> RoleTemplateBinding:
    who = {} if "principal" in spec or "user" in spec else {"user": "eve"}
    return RoleTemplateBinding.model_validate(
        {"metadata": {"name": name}, "spec": {"role": role, "scope": scope, **who, **spec}}
    )


def by_labels(labels: dict) -> dict:
    return {"clusterSelector": {"matchLabels": labels}}


def by_expression(operator: str, *values: str) -> dict:
    return {"clusterSelector": {"matchExpressions": [{"key": "env", "operator": operator, "values": list(values)}]}}


EVERYWHERE, EAST, WEST = {"global": True}, {"cluster": "east"}, {"cluster": "west"}


@asynccontextmanager
async def running(clock):
    """Ada is admin and owns every cluster; Bob owns east; Eve has nothing."""
    async with running_hub(clock) as hub:
        await ensure_builtins(hub.stores["authz"], clock)
        locked = made.role("locked", "cluster")
        locked.spec.locked = True
        await hub.put(ADA, BOB, EVE, made.cluster("east"), made.cluster("west"), made.project("shop", "east"), locked)
        await hub.put(
            made.binding(ADA, "admin", everywhere=True, name="ada-admin"),
            made.binding(ADA, "cluster-owner", everywhere=True),
            made.binding(BOB, "cluster-owner", cluster="east", name="bob-east"),
        )
        strategy = BindingStrategy(hub.objects(RoleTemplate), hub.live)
        yield hub, hub.writer("authz", {"roletemplatebindings": strategy})


async def test_names_become_immutable_ids(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, BOB, "create", new("cluster-viewer", EAST))
        stored = await hub.get(RoleTemplateBinding, "b")
        assert stored.spec.principal == EVE.status.principal_id
        assert stored.spec.scope.cluster_uid == "uid-east"
        await hub.write(writer, ADA, "create", new("project-viewer", {"project": "shop"}, "p"))
        assert (await hub.get(RoleTemplateBinding, "p")).spec.scope.project_uid == "uid-shop"
        await hub.write(writer, BOB, "create", new("cluster-viewer", EAST, "c", principal=EVE.status.principal_id))
        assert (await hub.get(RoleTemplateBinding, "c")).spec.user == "eve"
        assert hub.live.current.synthetic_groups(made.caller(EVE), "east", "uid-east")


@pytest.mark.parametrize(
    ("binding", "why"),
    [
        (new("nothing", EAST), "spec.role: Not found"),
        (new("locked", EAST), "is locked"),
        (new("cluster-viewer", {"cluster": "gone"}), "spec.scope.cluster: Not found"),
        (new("cluster-viewer", {"cluster": "east", "clusterUid": "earlier"}), "spec.scope.cluster: Not found"),
        (new("project-viewer", {"project": "gone"}), "spec.scope.project: Not found"),
        (new("project-viewer", {"project": "shop", "projectUid": "earlier"}), "spec.scope.project: Not found"),
        (new("cluster-viewer", EAST, user="nobody"), "spec.user: Not found"),
        (new("cluster-viewer", EAST, principal="local:user:nobody"), "spec.principal: Not found"),
        (new("cluster-viewer", EAST, principal="local:group:nothing"), "spec.principal: Not found"),
        (new("cluster-viewer", EAST, user="eve", principal="local:user:uid-ada"), "it is not user"),
        (new("cluster-viewer", EAST, principal="eve"), "must be <provider>"),
        (new("cluster-viewer", EAST, principal="ldap:group:system:masters"), "reserved"),
        (new("cluster-viewer", EAST, principal=""), "must be <provider>"),
        (new("cluster-viewer", EAST, principal="ldap:group:a\x1b[2Jb"), "control characters"),
        (new("cluster-viewer", {}), "exactly one of"),
        (new("cluster-viewer", {"global": True, "cluster": "east"}), "exactly one of"),
        (new("cluster-viewer", by_labels({})), "say so with global: true"),
        (new("cluster-viewer", {"clusterSelector": {}}), "say so with global: true"),
        (new("cluster-viewer", {**by_labels({"a": "b"}), "cluster": "east"}), "exactly one of"),
        (new("project-viewer", by_labels({"a": "b"})), "has scope project"),
        (new("admin", by_labels({"a": "b"})), "has scope global"),
        (new("cluster-viewer", by_labels({"a b": "c"})), r"clusterSelector.matchLabels: Invalid value"),
        (new("cluster-viewer", by_labels({"a": "!"})), r"clusterSelector.matchLabels\[a\]: Invalid value"),
        (new("cluster-viewer", by_expression("In")), r"matchExpressions\[0\].values: .* takes at least one value"),
        (new("cluster-viewer", by_expression("Exists", "x")), r"matchExpressions\[0\].values: .* takes no values"),
        (new("admin", EAST), "has scope global"),
        (new("cluster-owner", {"project": "shop"}), "has scope cluster"),
        (new("project-owner", EAST), "has scope project"),
        (new("project-owner", EVERYWHERE), "has scope project"),
        (new("cluster-viewer", EAST, notAfter="2020-01-01T00:00:00Z"), "in the future"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_bindings_that_make_no_sense_are_refused(clock, binding, why):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Invalid, match=why):
            await hub.write(writer, ADA, "create", binding)


@pytest.mark.parametrize(
    ("giver", "role", "scope", "allowed"),
    [
        (BOB, "cluster-viewer", EAST, True),
        (BOB, "cluster-owner", EAST, True),
        (BOB, "cluster-viewer", WEST, False),
        (BOB, "cluster-viewer", EVERYWHERE, False),
        (BOB, "admin", EVERYWHERE, False),
        (EVE, "cluster-viewer", EAST, False),
        (EVE, "user", EVERYWHERE, False),
        (ADA, "admin", EVERYWHERE, True),
        (ADA, "cluster-owner", EVERYWHERE, True),
        (ADA, "project-owner", {"project": "shop"}, True),
        (BOB, "project-owner", {"project": "shop"}, False),
        (ADA, "cluster-owner", by_labels({"env": "dev"}), True),
        (BOB, "cluster-viewer", by_labels({"env": "dev"}), False),
    ],
    ids=str,
)
async def test_who_may_give_what_where(clock, giver, role, scope, allowed):
    async with running(clock) as (hub, writer):
        try:
            await hub.write(writer, giver, "create", new(role, scope))
        except (errors.Denied, errors.NotFound):
            assert not allowed
        else:
            assert allowed


async def test_an_admin_without_cluster_rights_gives_none_inside_clusters(clock):
    async with running(clock) as (hub, writer):
        await hub.put(made.binding(EVE, "admin", everywhere=True))
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await hub.write(writer, EVE, "create", new("cluster-owner", EVERYWHERE))


async def test_a_read_only_or_scoped_token_gives_nothing(clock):
    async with running(clock) as (hub, writer):
        for more in ({"read_only": True}, {"clusters": ["east"]}):
            hub.envelope = lambda who, more=more: hub.signer.seal(made.caller(who, **more))
            with pytest.raises(errors.Denied):
                await hub.write(writer, ADA, "create", new("cluster-viewer", EAST))


async def test_only_the_end_of_a_binding_can_change_and_prolonging_is_giving(clock):
    soon, later = clock() + timedelta(hours=1), clock() + timedelta(hours=2)
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", new("cluster-owner", WEST, notAfter=soon))

        async def patch(who, **spec):
            await hub.write(writer, who, "patch", "b", plural="roletemplatebindings", body={"spec": spec})

        for change in (
            {"role": "cluster-viewer"},
            {"user": "bob"},
            {"scope": {"cluster": "east"}},
            {"principal": "local:user:x"},
        ):
            with pytest.raises(errors.Invalid, match="only notAfter"):
                await patch(ADA, **change)
        await patch(ADA, notAfter=later.isoformat())
        helper = made.role("helper", "global", hub=[made.hub_rule("*", "roletemplatebindings")])
        await hub.put(helper, made.binding(EVE, "helper", everywhere=True))
        await patch(EVE, notAfter=soon.isoformat())
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await patch(EVE, notAfter=later.isoformat())
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await patch(EVE, notAfter=None)


async def test_a_locked_role_is_not_prolonged_for_those_who_have_it(clock):
    soon, later = clock() + timedelta(hours=1), clock() + timedelta(hours=2)
    async with running(clock) as (hub, writer):
        await hub.put(made.binding(EVE, "locked", cluster="east", name="b", until=later))

        async def ends(moment) -> None:
            body = {"spec": {"notAfter": moment and moment.isoformat()}}
            await hub.write(writer, ADA, "patch", "b", plural="roletemplatebindings", body=body)

        await ends(soon)
        for moment in (later, None):
            with pytest.raises(errors.Invalid, match=r'spec.notAfter: .*role "locked" is locked'):
                await ends(moment)
        await hub.write(writer, ADA, "delete", "b", plural="roletemplatebindings")


async def test_a_binding_says_why_it_was_given(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, BOB, "create", new("cluster-viewer", EAST, reason="on call"))
        body = {"spec": {"reason": "on call, week 12"}}
        await hub.write(writer, BOB, "patch", "b", plural="roletemplatebindings", body=body)
        stored = await hub.get(RoleTemplateBinding, "b")
        assert stored.spec.reason == "on call, week 12"
        columns = {c.name: c for c in BY_PLURAL["roletemplatebindings"].columns}
        assert columns["Reason"].path == "spec.reason"
        for text in ("two\nlines", "\x1b[2J", "\u202eback"):
            with pytest.raises(errors.Invalid, match=r"spec.reason"):
                await hub.write(writer, BOB, "create", new("cluster-viewer", EAST, "c", reason=text))


async def test_who_holds_a_role_for_an_hour_gives_it_for_no_longer(clock):
    hour, day = clock() + timedelta(hours=1), clock() + timedelta(days=1)
    async with running(clock) as (hub, writer):
        await hub.put(made.binding(EVE, "cluster-owner", cluster="west", name="eve-west", until=hour))
        for until in (None, day.isoformat()):
            with pytest.raises(errors.Denied, match="for a shorter time"):
                await hub.write(writer, EVE, "create", new("cluster-owner", WEST, user="bob", notAfter=until))
        with pytest.raises(errors.Denied, match="for a shorter time"):
            await hub.write(
                writer, EVE, "patch", "eve-west", plural="roletemplatebindings", body={"spec": {"notAfter": None}}
            )
        await hub.write(writer, EVE, "create", new("cluster-owner", WEST, user="bob", notAfter=hour.isoformat()))


async def test_an_end_that_nobody_could_read_back_is_refused_and_one_long_ago_is_read_back(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, BOB, "create", new("cluster-viewer", EAST, notAfter=hours(clock, 1)))
        with pytest.raises(errors.Invalid, match=r"spec.notAfter: .* between the years 1 and 9999"):
            await hub.write(
                writer, BOB, "patch", "b", plural="roletemplatebindings", body=ends("9999-12-31T23:00:00-05:00")
            )
        await hub.write(writer, BOB, "patch", "b", plural="roletemplatebindings", body=ends("0001-01-01T00:00:00Z"))
        assert (await hub.get(RoleTemplateBinding, "b")).spec.not_after.year == 1
        # One object that can't be read stops everybody who looks at all of them.
        assert len(hub.objects(RoleTemplateBinding).all()) == 4


def hours(clock, count: int) -> str:
    return (clock() + timedelta(hours=count)).isoformat()


def ends(text: str) -> dict:
    return {"spec": {"notAfter": text}}


async def test_an_update_may_leave_out_what_the_hub_filled_in(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", new("cluster-viewer", EAST))
        again = new("cluster-viewer", EAST)
        again.metadata.resource_version = (await hub.get(RoleTemplateBinding, "b")).metadata.resource_version
        await hub.write(writer, ADA, "update", again)
        assert (await hub.get(RoleTemplateBinding, "b")).spec.scope.cluster_uid == "uid-east"


async def test_the_last_admin_keeps_the_role(clock):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Invalid, match="nobody would be an admin"):
            await hub.write(writer, ADA, "delete", "ada-admin", plural="roletemplatebindings")
        ending = {"spec": {"notAfter": (clock() + timedelta(hours=1)).isoformat()}}
        with pytest.raises(errors.Invalid, match="nobody would be an admin"):
            await hub.write(writer, ADA, "patch", "ada-admin", plural="roletemplatebindings", body=ending)
        await hub.write(writer, ADA, "create", new("admin", EVERYWHERE, user="bob"))
        await hub.write(writer, BOB, "delete", "ada-admin", plural="roletemplatebindings")


def reconciler(hub) -> BindingReconciler:
    return BindingReconciler(hub.stores["authz"], hub.stores.__getitem__, hub.objects(RoleTemplateBinding), hub.now)


async def gone(hub, name: str) -> bool:
    assert await reconciler(hub).reconcile(name) is not None
    await hub.settle()
    return f"roletemplatebindings.{name}" not in hub.informers["roletemplatebindings"].entries


async def test_an_expired_binding_is_removed_a_day_later(clock):
    async with running(clock) as (hub, _):
        await hub.put(
            made.binding(EVE, "cluster-viewer", cluster="east", name="b", until=clock() + timedelta(seconds=10))
        )
        assert isinstance(await reconciler(hub).reconcile("b"), After)
        clock.forward(10 + KEEP_EXPIRED_S - 1)
        assert not await gone(hub, "b")
        clock.forward(1)
        assert await gone(hub, "b")
        assert await reconciler(hub).reconcile("b") == DONE


async def test_bindings_go_with_their_cluster_project_or_user(clock):
    async with running(clock) as (hub, _):
        for name, who, role, scope in (
            ("of-cluster", EVE, "cluster-viewer", {"cluster": "east"}), ("of-project", EVE, "project-viewer", {"project": "shop"}),
            ("of-user", BOB, "cluster-viewer", {"cluster": "west"}),
        ):  # fmt: skip
            bound = made.binding(who, role, name=name, **scope)
            bound.spec.user = who.name
            await hub.put(bound)
            assert not await gone(hub, name)
        await hub.delete(made.cluster("east"))
        await hub.put(made.cluster("east", "uid-another-east"))
        await hub.delete(made.project("shop", "east"))
        await hub.put(made.project("shop", "east", created=clock()))
        await hub.delete(BOB)
        assert [await gone(hub, n) for n in ("of-cluster", "of-project", "of-user")] == [True, True, True]
        assert not await gone(hub, "ada-admin")


@asynccontextmanager
async def empty(clock):
    async with running_hub(clock) as hub:
        await ensure_builtins(hub.stores["authz"], clock)
        users, bindings = hub.objects(User), hub.objects(RoleTemplateBinding)
        yield hub, AdminBootstrap(hub.stores["authz"], users, bindings, "ada", clock)


async def test_the_first_admin_is_bound_once_when_the_user_comes(clock):
    async with empty(clock) as (hub, bootstrap):
        await bootstrap.reconcile("ada")
        assert not hub.objects(RoleTemplateBinding).names()
        await hub.put(ADA)
        await bootstrap.reconcile("ada")
        await bootstrap.reconcile("ada")
        await hub.settle()
        assert hub.live.current.is_allowed(made.caller(ADA), "create", "users")
        assert sorted(b.spec.role for b in hub.objects(RoleTemplateBinding).all()) == ["admin", "cluster-owner"]


async def test_an_admin_whose_bindings_were_removed_is_not_bound_again(clock):
    async with empty(clock) as (hub, bootstrap):
        await hub.put(ADA)
        await bootstrap.reconcile("ada")
        await hub.settle()
        for bound in hub.objects(RoleTemplateBinding).all():
            await hub.delete(bound)
        await hub.delete(ADA)
        await hub.put(made.user("ada", "uid-of-another-ada"))
        await bootstrap.reconcile("ada")
        await hub.settle()
        assert not hub.objects(RoleTemplateBinding).names()


async def test_a_hub_that_has_an_admin_gets_no_other(clock):
    async with empty(clock) as (hub, bootstrap):
        bound = made.binding(BOB, "admin", everywhere=True)
        await hub.put(ADA, BOB, bound)
        await bootstrap.reconcile("ada")
        await hub.delete(bound)
        await bootstrap.reconcile("ada")
        await hub.settle()
        assert not hub.objects(RoleTemplateBinding).names()
