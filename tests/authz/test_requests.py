"""Asking for a role for a while: who may ask, who approves, four eyes, and the grant in the same write as its status."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common import errors
from libs.common.contracts.messages import ResourceWrite, WriteOptions
from libs.common.reconcile import DONE, After
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.requests import AccessPolicy, AccessRequest
from services.authz.request_rules import LAPSE_S, MAX_PENDING
from services.authz.request_strategy import REQUEST_NOTE
from services.authz.requests import KEEP_S
from tests.access import made
from tests.authz.asking import ADA, BOB, EVE, IDS, ROB, SAM, ask, closer_of, decide, groups, policy, running


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
