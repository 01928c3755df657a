"""Asking for a role for a while: who may ask, who approves, four eyes, and the grant in the same write as its status."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from libs.common import errors
from libs.common.contracts.messages import ResourceWrite, WriteOptions
from libs.common.observe import metrics
from libs.common.reconcile import DONE, After
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.identity import User
from libs.common.resources.requests import AccessPolicy, AccessRequest
from services.authz.binding_strategy import BindingStrategy
from services.authz.break_glass import ALARM, Alarms, BreakGlassGuard, GuardedRoleStrategy
from services.authz.builtins import ensure_builtins
from services.authz.policy_of_requests import AccessPolicyStrategy
from services.authz.request_rules import LAPSE_S, MAX_PENDING
from services.authz.request_strategy import REQUEST_NOTE, AccessRequestStrategy
from services.authz.requests import KEEP_S, RequestReconciler
from tests.access import made
from tests.access.hub import running_hub

ADA, BOB, EVE, SAM, ROB = (made.user(n) for n in ("ada", "bob", "eve", "sam", "rob"))
ROB.spec.service = True
IDS = {u.name: u.status.principal_id for u in (ADA, BOB, EVE, SAM, ROB)}
EAST = {"cluster": "east"}


def policy(name: str = "p", **spec) -> AccessPolicy:
    given = {
        "roles": ["cluster-member", "cluster-viewer"], "scopes": [EAST], "requesters": [IDS["eve"]],
        "approvers": [IDS["bob"], IDS["sam"], IDS["eve"], IDS["rob"]], **spec,
    }  # fmt: skip
    return AccessPolicy.model_validate({"metadata": {"name": name}, "spec": given})


def ask(name: str = "r", **spec) -> AccessRequest:
    given = {
        "role": "cluster-member",
        "scope": dict(EAST),
        "durationSeconds": 60,
        "reason": "the queue is stuck",
        **spec,
    }
    return AccessRequest.model_validate({"metadata": {"name": name}, "spec": given})


@asynccontextmanager
async def running(clock, *policies: AccessPolicy):
    """Ada is admin and owns every cluster; Bob and the service user Rob own east, Sam sees it; Eve has nothing and may ask."""
    async with running_hub(clock) as hub:
        await ensure_builtins(hub.stores["authz"], clock)
        await hub.put(ADA, BOB, EVE, SAM, ROB, made.cluster("east"), made.cluster("west"), made.project("shop", "east"))
        await hub.put(
            made.binding(ADA, "admin", everywhere=True, name="ada-admin"),
            made.binding(ADA, "cluster-owner", everywhere=True),
            made.binding(BOB, "cluster-owner", cluster="east", name="bob-east"),
            made.binding(ROB, "cluster-owner", cluster="east", name="rob-east"),
            made.binding(SAM, "cluster-viewer", cluster="east", name="sam-east"),
        )
        giving = BindingStrategy(hub.objects(RoleTemplate), hub.live)
        guard = BreakGlassGuard(hub.objects(AccessPolicy), hub.live.bindings)
        roles = GuardedRoleStrategy(hub.objects(RoleTemplate), hub.live.bindings, guard)
        requests = AccessRequestStrategy(
            hub.stores["authz"], hub.objects(AccessPolicy), hub.objects(AccessRequest), hub.objects(RoleTemplate), hub.live.bindings,
            hub.objects(User), giving, hub.live,
        )  # fmt: skip
        writer = hub.writer(
            "authz",
            {
                "accesspolicies": AccessPolicyStrategy(hub.objects(RoleTemplate), guard, hub.live),
                "accessrequests": requests,
                "roletemplates": roles,
            },
        )
        for one in policies or (policy(),):
            await hub.write(writer, ADA, "create", one)
        yield hub, writer


async def decide(hub, writer, who: User, verdict: str = "approve", name: str = "r", **more):
    stored = await hub.get(AccessRequest, name)
    decisions = [*(d.to_document() for d in stored.spec.decisions), {"verdict": verdict, **more}]
    body = {"metadata": {"resourceVersion": stored.metadata.resource_version}, "spec": {"decisions": decisions}}
    await hub.write(writer, who, "patch", name, plural="accessrequests", body=body)
    return await hub.get(AccessRequest, name)


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """Figures of this test alone: a registry takes each of them once."""
    registry = CollectorRegistry()
    monkeypatch.setattr(metrics, "registry", lambda: registry)
    return registry


def closer_of(hub, clock):
    requests = hub.objects(AccessRequest)
    return RequestReconciler(
        hub.stores["authz"], hub.objects(AccessPolicy), requests, Alarms(hub.stores["authz"], requests, clock), clock
    )


def groups(hub, who: User = EVE, cluster: str = "east"):
    return hub.live.current.synthetic_groups(made.caller(who), cluster, f"uid-{cluster}")


async def test_asked_approved_and_over_to_the_second(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        asked = await hub.get(AccessRequest, "r")
        assert (asked.spec.user, asked.spec.principal, asked.spec.policy) == ("eve", IDS["eve"], "p")
        assert (asked.spec.scope.cluster_uid, asked.status.phase, asked.status.missing) == ("uid-east", "Pending", 1)
        assert groups(hub) == ()
        done = await decide(hub, writer, BOB, comment="go on")
        assert (done.status.phase, done.status.until) == ("Granted", clock() + timedelta(seconds=60))
        assert [(d.by, d.by_uid, d.comment, d.at) for d in done.spec.decisions] == [
            ("bob", "uid-bob", "go on", clock())
        ]
        binding = await hub.get(RoleTemplateBinding, done.status.binding)
        assert (binding.spec.principal, binding.spec.not_after) == (IDS["eve"], done.status.until)
        assert binding.metadata.annotations == {REQUEST_NOTE: "r"}
        assert binding.spec.reason == "the queue is stuck"
        assert groups(hub) == ("herdsman:cluster:east:cluster-member",)
        clock.forward(59.999)
        assert groups(hub)
        clock.forward(0.001)
        assert groups(hub) == ()


async def test_who_asks_is_who_calls_whatever_the_body_says(clock):
    async with running(clock) as (hub, writer):
        forged = ask(
            user="ada",
            userUid="uid-ada",
            principal=IDS["ada"],
            decisions=[{"verdict": "approve", "by": "bob", "byUid": "uid-bob"}],
        )
        await hub.write(writer, EVE, "create", forged)
        asked = await hub.get(AccessRequest, "r")
        assert (asked.spec.user, asked.spec.user_uid, asked.spec.principal, asked.spec.decisions) == (
            "eve",
            "uid-eve",
            IDS["eve"],
            [],
        )
        done = await decide(hub, writer, BOB, by="ada", byUid="uid-ada")
        assert done.spec.decisions[0].by == "bob"


@pytest.mark.parametrize("reason", ["", "a\nb", "\x1b[2Jnothing", "fine \u202e gnihtyna", "x" * 1025])
async def test_what_an_approver_reads_is_one_line_that_does_what_it_says(clock, reason):
    async with running(clock) as (hub, writer):
        body = ask().to_document()
        with pytest.raises(errors.Invalid, match=r"spec\.reason"):
            await writer.handle(
                _create(hub, EVE, "accessrequests", {**body, "spec": {**body["spec"], "reason": reason}})
            )


@pytest.mark.parametrize(
    ("who", "spec"),
    [
        (SAM, {}),  # not named in the policy
        (EVE, {"role": "cluster-owner"}),
        (EVE, {"scope": {"cluster": "west"}}),
        (EVE, {"scope": {"cluster": "nix"}}),
        (EVE, {"scope": {"global": True}}),
        (EVE, {"scope": {"project": "shop"}}),
        (EVE, {"durationSeconds": 3601}),
        (EVE, {"policy": "other"}),
    ],
)
async def test_what_no_policy_allows_is_refused_in_the_same_words(clock, who, spec):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Denied, match="lets you"):
            await hub.write(writer, who, "create", ask(**spec))


async def test_a_request_names_its_policy_where_several_fit(clock):
    wide = policy("wide", requesters=["*"], scopes=[{"anyCluster": True}])
    async with running(clock, policy(), wide) as (hub, writer):
        with pytest.raises(errors.Invalid, match="several policies allow it: name one of p; wide"):
            await hub.write(writer, EVE, "create", ask())
        await hub.write(writer, EVE, "create", ask(policy="wide", scope={"cluster": "west"}))
        await hub.write(writer, SAM, "create", ask("s"))
        assert (await hub.get(AccessRequest, "s")).spec.policy == "wide"


async def test_nobody_approves_their_own_request_by_whatever_account(clock):
    async with running(clock) as (hub, writer):
        await hub.put(made.binding(EVE, "cluster-owner", cluster="east", name="eve-east"))
        await hub.write(writer, EVE, "create", ask())
        with pytest.raises(errors.Denied, match="you asked for it"):
            await decide(hub, writer, EVE)
        with pytest.raises(errors.Denied, match="service user"):
            await decide(hub, writer, ROB)
        assert (await hub.get(AccessRequest, "r")).status.phase == "Pending"


async def test_approving_is_giving(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await decide(hub, writer, SAM)
        assert groups(hub) == ()
        await hub.delete(await hub.get(RoleTemplateBinding, "bob-east"))
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await decide(hub, writer, BOB)
        await hub.put(
            made.binding(BOB, "cluster-owner", cluster="east", name="short", until=clock() + timedelta(seconds=30))
        )
        with pytest.raises(errors.Denied, match="for a shorter time"):
            await decide(hub, writer, BOB)
        denied = await decide(hub, writer, SAM, "deny")
        assert denied.status.phase == "Denied", "who lacks the role can still say no"


async def test_two_approvals_are_of_two_people_who_both_still_could_at_the_last(clock):
    async with running(clock, policy(approvals=2, approvers=[IDS["bob"], IDS["ada"]])) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        first = await decide(hub, writer, BOB)
        assert (first.status.phase, first.status.missing) == ("Pending", 1)
        with pytest.raises(errors.Denied, match="you decided already"):
            await decide(hub, writer, BOB)
        await hub.delete(await hub.get(RoleTemplateBinding, "bob-east"))
        with pytest.raises(errors.Conflict, match='"bob", who approved before, could not do so now'):
            await decide(hub, writer, ADA)
        assert groups(hub) == ()
        await hub.put(made.binding(BOB, "cluster-owner", cluster="east", name="bob-again"))
        assert (await decide(hub, writer, ADA)).status.phase == "Granted"
        assert groups(hub)


async def test_names_that_are_reused_while_a_request_waits_give_nothing(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        await hub.delete(made.cluster("east"))
        with pytest.raises(errors.Conflict, match="is gone"):
            await decide(hub, writer, BOB)
        await hub.put(
            made.cluster("east", "uid-another"),
            made.binding(BOB, "cluster-owner", cluster="east", uid="uid-another", name="b2"),
        )
        with pytest.raises(errors.Conflict, match="another one"):
            await decide(hub, writer, BOB)
        with pytest.raises(errors.Denied, match="lets you"):
            await hub.write(writer, EVE, "create", ask("again"))


async def test_a_user_or_policy_made_again_under_its_name_is_another(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        await hub.delete(EVE)
        await hub.put(made.user("eve", "uid-another"))
        with pytest.raises(errors.Conflict, match="disabled or gone"):
            await decide(hub, writer, BOB)
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        await hub.delete(await hub.get(AccessPolicy, "p"))
        await hub.write(writer, ADA, "create", policy(roles=["cluster-owner"]))
        with pytest.raises(errors.Conflict, match="policy"):
            await decide(hub, writer, BOB)


async def test_a_policy_that_was_narrowed_meanwhile_counts(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        narrowed = await hub.get(AccessPolicy, "p")
        narrowed.spec.roles = ["cluster-viewer"]
        await hub.write(writer, ADA, "update", narrowed)
        with pytest.raises(errors.Conflict, match="no longer lets"):
            await decide(hub, writer, BOB)


async def test_an_approval_cannot_be_played_again(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        before = await hub.get(AccessRequest, "r")
        done = await decide(hub, writer, BOB)
        old = {
            "metadata": {"resourceVersion": before.metadata.resource_version},
            "spec": {"decisions": [{"verdict": "approve"}]},
        }
        with pytest.raises(errors.Conflict):
            await hub.write(writer, BOB, "patch", "r", plural="accessrequests", body=old)
        await hub.delete(await hub.get(RoleTemplateBinding, done.status.binding))
        for who, verdict in ((BOB, "approve"), (SAM, "approve"), (SAM, "deny")):
            with pytest.raises(errors.Conflict, match="nothing to decide"):
                await decide(hub, writer, who, verdict)
        assert groups(hub) == ()


async def test_a_grant_that_cannot_be_written_as_a_whole_is_not_written_at_all(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        taken = f"access-{(await hub.get(AccessRequest, 'r')).uid}"
        await hub.put(made.binding(SAM, "cluster-viewer", cluster="west", name=taken))
        with pytest.raises(errors.Conflict):
            await decide(hub, writer, BOB)
        assert (await hub.get(AccessRequest, "r")).status.phase == "Pending"
        assert groups(hub) == ()
        assert (await hub.get(RoleTemplateBinding, taken)).spec.role == "cluster-viewer"


async def test_nothing_of_a_request_changes_but_one_more_decision(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        for who in (EVE, BOB):
            for spec in ({"durationSeconds": 3000}, {"role": "cluster-viewer"}, {"reason": "x"}, {"user": "ada"}, {"policyUid": "x"},
                         {"decisions": [{"verdict": "approve"}, {"verdict": "approve"}]}):  # fmt: skip
                with pytest.raises(errors.Invalid, match="Forbidden"):
                    await hub.write(writer, who, "patch", "r", plural="accessrequests", body={"spec": spec})
        for who, why in ((BOB, "cannot patch"), (EVE, "cannot patch"), (ADA, "written by the hub alone")):
            body = {"status": {"phase": "Granted"}}
            with pytest.raises(errors.Denied, match=why):
                await hub.write(writer, who, "patch", "r", plural="accessrequests", body=body, subresource="status")
        await decide(hub, writer, SAM, "deny")
        with pytest.raises(errors.Invalid, match="none be changed or taken away"):
            await hub.write(writer, SAM, "patch", "r", plural="accessrequests", body={"spec": {"decisions": []}})


async def test_who_sees_a_request_and_a_policy(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        request, one = (
            (await hub.get(AccessRequest, "r")).to_document(),
            (await hub.get(AccessPolicy, "p")).to_document(),
        )
        stranger = made.user("joe")
        await hub.put(stranger)
        grants = hub.live.current
        for who, sees, decides in (
            (EVE, True, True),
            (BOB, True, True),
            (SAM, True, True),
            (ADA, True, True),
            (stranger, False, False),
        ):
            assert grants.is_allowed_on(made.caller(who), "get", "accessrequests", request) == sees, who.name
            assert grants.is_allowed_on(made.caller(who), "patch", "accessrequests", request) == decides, who.name
        assert grants.is_allowed_on(made.caller(EVE), "get", "accesspolicies", one)
        assert not grants.is_allowed_on(made.caller(EVE), "update", "accesspolicies", one)
        assert not grants.is_allowed_on(made.caller(SAM), "get", "accesspolicies", one)
        read_only = made.caller(EVE, read_only=True)
        assert not grants.is_allowed(read_only, "create", "accessrequests")
        assert not grants.is_allowed(made.caller(EVE, clusters=["east"]), "create", "accessrequests")
        with pytest.raises((errors.Denied, errors.NotFound)):
            await decide(hub, writer, stranger)
        with pytest.raises(errors.Denied):
            await hub.write(writer, EVE, "create", policy("mine"))


async def test_only_who_asked_takes_back_and_only_what_is_undecided(clock):
    async with running(clock) as (hub, writer):
        for name in ("r", "s"):
            await hub.write(writer, EVE, "create", ask(name))
        with pytest.raises(errors.Denied, match="only who asked"):
            await hub.write(writer, BOB, "delete", "r", plural="accessrequests")
        await hub.write(writer, EVE, "delete", "s", plural="accessrequests")
        done = await decide(hub, writer, BOB)
        with pytest.raises(errors.Denied, match="as long as nobody decided"):
            await hub.write(writer, EVE, "delete", "r", plural="accessrequests")
        with pytest.raises(errors.Conflict, match=done.status.binding):
            await hub.write(writer, ADA, "delete", "r", plural="accessrequests")


async def test_somebody_who_asks_too_often_is_told(clock):
    async with running(clock) as (hub, writer):
        for number in range(MAX_PENDING):
            await hub.write(writer, EVE, "create", ask(f"r{number}"))
        with pytest.raises(errors.Denied, match="at most"):
            await hub.write(writer, EVE, "create", ask("more"))
        await hub.write(writer, EVE, "delete", "r0", plural="accessrequests")
        await hub.write(writer, EVE, "create", ask("more"))


async def test_a_dry_run_of_an_approval_gives_nothing(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        body = {"spec": {"decisions": [{"verdict": "approve"}]}}
        reply = await hub.write(writer, BOB, "patch", "r", plural="accessrequests", body=body, dry_run=True)
        assert reply.document["status"]["phase"] == "Granted"
        assert groups(hub) == ()
        assert (await hub.get(AccessRequest, "r")).status.phase == "Pending"


async def test_a_request_in_a_project_is_for_that_project(clock):
    wide = policy(roles=["project-member"], scopes=[{"project": "shop"}], approvers=[IDS["ada"]])
    async with running(clock, wide) as (hub, writer):
        await hub.write(writer, EVE, "create", ask(role="project-member", scope={"project": "shop"}))
        assert (await hub.get(AccessRequest, "r")).spec.scope.project_uid == "uid-shop"
        done = await decide(hub, writer, ADA)
        assert groups(hub) == ("herdsman:project:shop:uid-shop:project-member",)
        assert (await hub.get(RoleTemplateBinding, done.status.binding)).spec.scope.project_uid == "uid-shop"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"scopes": [{"cluster": "east", "global": True}]}, r"spec\.scopes\[0\]"),
        ({"scopes": [{}]}, r"spec\.scopes\[0\]"),
        ({"scopes": [{"cluster": "nix"}]}, r"spec\.scopes\[0\]\.cluster"),
        ({"scopes": [{"cluster": "east", "clusterUid": "other"}]}, r"spec\.scopes\[0\]\.cluster"),
        ({"approvers": ["bob"]}, r"spec\.approvers\[0\]"),
        ({"approvers": ["*"]}, r"spec\.approvers\[0\]"),
        ({"approvers": []}, r"spec\.approvers"),
        ({"requesters": ["x:user:system:admin"]}, r"spec\.requesters\[0\]"),
        ({"approvals": 0}, r"spec\.approvals"),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused_with_the_field(clock, spec, field):
    async with running(clock) as (hub, writer):
        body = {"metadata": {"name": "q"}, "spec": {**policy().spec.to_document(), **spec}}
        with pytest.raises(errors.Invalid, match=field):
            await writer.handle(_create(hub, ADA, "accesspolicies", body))


def _create(hub, who, plural, body):
    return ResourceWrite(
        identity=hub.envelope(who),
        verb="create",
        plural=plural,
        name="",
        body=body,
        patch_type=None,
        subresource="",
        options=WriteOptions(),
    )


async def test_requests_close_by_themselves(clock):
    async with running(clock) as (hub, writer):
        closer = closer_of(hub, clock)

        async def reconciled(name):
            outcome = await closer.reconcile(name)
            await hub.settle()
            try:
                return outcome, (await hub.get(AccessRequest, name)).status.phase
            except errors.NotFound:
                return outcome, "gone"

        for name in ("r", "s", "t"):
            await hub.write(writer, EVE, "create", ask(name))
        outcome, phase = await reconciled("r")
        assert (isinstance(outcome, After), phase) == (True, "Pending")
        await decide(hub, writer, BOB, name="r")
        revoked = await decide(hub, writer, BOB, name="s")
        assert (await reconciled("r"))[1] == "Granted"
        await hub.delete(await hub.get(RoleTemplateBinding, revoked.status.binding))
        assert (await reconciled("s"))[1] == "Revoked"
        clock.forward(60)
        assert (await reconciled("r"))[1] == "Ended"
        clock.forward(LAPSE_S)
        with pytest.raises(errors.Conflict, match="Lapsed"):
            await decide(hub, writer, BOB, name="t")
        assert (await reconciled("t"))[1] == "Lapsed"
        assert (await reconciled("t"))[1] == "Lapsed"
        clock.forward(KEEP_S)
        for name in ("r", "s", "t"):
            assert await reconciled(name) == (DONE, "gone")


GLASS = policy("glass", breakGlass=True, roles=["cluster-owner"], approvers=[IDS["bob"], IDS["sam"]])


def emergency(name: str = "r", **spec) -> AccessRequest:
    return ask(name, **{"role": "cluster-owner", "breakGlass": True, **spec})


async def test_in_an_emergency_the_role_is_there_at_once_with_an_alarm(clock, figures):
    async with running(clock, GLASS) as (hub, writer):
        with pytest.raises(errors.Denied, match="lets you"):
            await hub.write(writer, EVE, "create", ask(role="cluster-owner"))
        with pytest.raises(errors.Denied, match="lets you"):
            await hub.write(writer, SAM, "create", emergency())
        await hub.write(writer, EVE, "create", emergency())
        made_ = await hub.get(AccessRequest, "r")
        assert (made_.status.phase, made_.status.unreviewed, made_.status.until) == (
            "Granted",
            True,
            clock() + timedelta(seconds=60),
        )
        assert groups(hub) == ("herdsman:cluster:east:cluster-owner",)
        closer = closer_of(hub, clock)
        with capture_logs() as lines:
            await closer.reconcile("r")
            await hub.settle()
            await closer.reconcile("r")
        told = [line for line in lines if line["event"] == ALARM]
        assert [(t["log_level"], t["user"], t["role"], t["scope"], t["reason"]) for t in told] == [
            ("error", "eve", "cluster-owner", "in cluster east", "the queue is stuck")
        ]
        assert figures.get_sample_value("herdsman_break_glass_total") == 1
        assert figures.get_sample_value("herdsman_break_glass_active") == 1
        assert figures.get_sample_value("herdsman_break_glass_unreviewed") == 1
        clock.forward(60)
        assert groups(hub) == ()


async def test_an_emergency_is_reviewed_by_somebody_else_and_stays_until_then(clock, figures):
    async with running(clock, GLASS) as (hub, writer):
        closer = closer_of(hub, clock)
        await hub.write(writer, EVE, "create", emergency())
        for who in (EVE, ROB):
            with pytest.raises((errors.Denied, errors.NotFound)):
                await decide(hub, writer, who)
        clock.forward(60 + LAPSE_S + KEEP_S)
        for _ in range(3):
            await closer.reconcile("r")
            await hub.settle()
        kept = await hub.get(AccessRequest, "r")
        assert (kept.status.phase, kept.status.unreviewed) == ("Ended", True)
        with pytest.raises(errors.Conflict, match="review it first"):
            await hub.write(writer, ADA, "delete", "r", plural="accessrequests")
        reviewed = await decide(hub, writer, SAM, comment="it was right")
        assert (reviewed.status.phase, reviewed.status.unreviewed) == ("Ended", False)
        with pytest.raises(errors.Conflict, match="nothing to decide"):
            await decide(hub, writer, BOB, "deny")
        await closer.reconcile("r")
        assert figures.get_sample_value("herdsman_break_glass_unreviewed") == 0
        with pytest.raises(errors.NotFound):
            await hub.get(AccessRequest, "r")


async def test_a_review_that_objects_takes_the_role_away_in_the_same_write(clock):
    async with running(clock, GLASS) as (hub, writer):
        await hub.write(writer, EVE, "create", emergency())
        assert groups(hub)
        objected = await decide(hub, writer, SAM, "deny")
        assert (objected.status.phase, objected.status.unreviewed) == ("Revoked", False)
        assert groups(hub) == ()
        await hub.write(writer, EVE, "create", emergency("again"))
        await hub.delete(await hub.get(RoleTemplateBinding, (await hub.get(AccessRequest, "again")).status.binding))
        assert (await decide(hub, writer, SAM, "deny", "again")).status.phase == "Revoked", (
            "somebody took it away before"
        )


async def test_who_makes_emergencies_possible_holds_what_they_give_for_good(clock):
    async with running(clock) as (hub, writer):
        keeper = made.role(
            "keeper", "global", hub=[made.hub_rule("*", "accesspolicies"), made.hub_rule("*", "roletemplates")]
        )
        await hub.put(
            keeper, made.binding(SAM, "keeper", everywhere=True), made.binding(BOB, "keeper", everywhere=True)
        )
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await hub.write(writer, SAM, "create", GLASS)
        for scope in ({"anyCluster": True}, {"project": "shop"}, {"anyProject": True}, {"global": True}):
            with pytest.raises(errors.Denied, match="rights that you lack"):
                await hub.write(
                    writer, BOB, "create", policy("wide", breakGlass=True, roles=["cluster-owner"], scopes=[scope])
                )
        await hub.write(writer, BOB, "create", GLASS)
        await hub.write(writer, SAM, "create", policy("asked", roles=["cluster-owner"]))
        await hub.put(
            made.binding(SAM, "cluster-owner", cluster="east", name="short", until=clock() + timedelta(hours=1))
        )
        with pytest.raises(errors.Denied, match="for a time only"):
            await hub.write(writer, SAM, "create", policy("later", breakGlass=True, roles=["cluster-owner"]))
        with pytest.raises(errors.Invalid, match="named"):
            await hub.write(writer, ADA, "create", policy("all", breakGlass=True, requesters=["*"]))
        with pytest.raises(errors.Invalid, match=r"spec\.roles\[0\]"):
            await hub.write(writer, ADA, "create", policy("none", breakGlass=True, roles=["nix"]))


async def test_a_role_that_an_emergency_gives_grows_by_nobody_who_lacks_what_is_added(clock):
    async with running(clock) as (hub, writer):
        keeper = made.role("keeper", "global", hub=[made.hub_rule("*", "roletemplates")])
        small = made.role("small", "cluster", rules=[made.rule("get", "pods")])
        heir = made.role("heir", "cluster", inherits=["small"])
        await hub.put(keeper, small, heir, made.binding(SAM, "keeper", everywhere=True))
        await hub.write(writer, ADA, "create", policy("glass", breakGlass=True, roles=["heir"]))
        wider = await hub.get(RoleTemplate, "small")
        wider.spec.rules += made.role("x", "cluster", rules=[made.rule("get", "secrets")]).spec.rules
        with pytest.raises(errors.Denied, match="in an emergency"):
            await hub.write(writer, SAM, "update", wider)
        other = made.role("other", "cluster", rules=[made.rule("get", "secrets")])
        await hub.write(writer, SAM, "create", other)
        await hub.write(writer, ADA, "update", wider)


async def test_who_decides_follows_the_policy(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, EVE, "create", ask())
        changed = await hub.get(AccessPolicy, "p")
        changed.spec.approvers = [IDS["ada"]]
        await hub.write(writer, ADA, "update", changed)
        with pytest.raises(errors.Denied, match="does not name you"):
            await decide(hub, writer, BOB)
        await closer_of(hub, clock).reconcile("r")
        assert (await hub.get(AccessRequest, "r")).status.approvers == [IDS["ada"]]
