"""What a project's status tells: how far each cluster is, since when, and what is used."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from libs.common import errors
from libs.common.contracts.messages import NamespaceObservation, NamespacesObserved
from libs.common.reconcile import DONE, After
from libs.common.resources.clusters import AppliedPart, Cluster
from libs.common.resources.projects import Project
from libs.common.store.informer import Informer
from services.project.claims import CLAIMS
from services.project.observed import LivingClusters, Observed
from services.project.status_reconciler import StatusReconciler, keys_of_applied, keys_of_seen
from tests.access import made
from tests.access.hub import end
from tests.project.test_projects import ADA, project, running


def cluster(name: str, *, connected: bool = True, parts: dict[str, str] | None = None, behind: tuple[str, ...] = ()):
    found = made.cluster(name)
    found.status.set_condition("Connected", connected, "Test", "", made.BEGIN)
    found.status.applied = [
        AppliedPart(name=part, hash="h", applied_at=made.BEGIN, error=why) for part, why in (parts or {}).items()
    ]
    found.status.behind = list(behind)
    return found


def seen(
    *names: str, project: str = "", complete: bool = False, present: tuple[str, ...] = (), **used: str
) -> NamespacesObserved:
    observed = [NamespaceObservation(name=name, uid=f"uid-{name}", project=project, used=used) for name in names]
    return NamespacesObserved(namespaces=observed, complete=complete, present=list(present))


class Times:
    def __init__(self) -> None:
        self.now = 100.0


def teller(hub, observed: Observed, times: Times) -> StatusReconciler:
    return StatusReconciler(
        hub.stores["project"], hub.objects(Project), hub.objects(Cluster), observed, hub.now, lambda: times.now
    )


@pytest.mark.parametrize(
    ("found", "state", "why"),
    [
        (cluster("east", parts={"projects/shop": ""}), "Applied", ""),
        (cluster("east"), "Pending", "has not taken it over yet"),
        (cluster("east", parts={"projects/shop": ""}, behind=("projects/shop",)), "Pending", "has not taken it over yet"),
        (cluster("east", parts={"projects/shop": ""}, behind=("projects/shopping", "roles")), "Applied", ""),
        (cluster("east", parts={"projects/shop/0": "", "projects/shop/1": "no such namespace"}), "Failed", "no such namespace"),
        (cluster("east", connected=False, parts={"projects/shop": ""}, behind=("projects/shop",)), "Pending", "not connected since 2026-01-01T00:00:00Z"),
        (cluster("east", connected=False, parts={"projects/shop": ""}), "Applied", ""),
    ],
)  # fmt: skip
async def test_each_cluster_is_told_by_itself_with_the_time_since(clock, found, state, why):
    async with running(clock) as (hub, writer):
        await hub.put(found, cluster("west", parts={"projects/shop": ""}))
        await hub.write(writer, ADA, "create", project("shop", "east/web", "west/web"))
        await teller(hub, Observed(), Times()).reconcile("shop")
        status = (await hub.get(Project, "shop")).status
        told = {c.name: c for c in status.clusters}
        assert told["west"].state == "Applied"
        assert told["east"].state == state
        assert why in told["east"].message
        assert told["east"].since == clock()
        applied = status.condition("Applied")
        assert (applied.status, applied.reason) == ("True" if state == "Applied" else "False", state)
        assert applied.message.startswith("2 of 2" if state == "Applied" else "1 of 2")


async def test_how_long_it_is_pending_stays_while_it_is_pending(clock):
    async with running(clock) as (hub, writer):
        await hub.put(cluster("east", connected=False))
        await hub.write(writer, ADA, "create", project("shop", "east/web"))
        tell = teller(hub, Observed(), Times())
        begun = clock()
        await tell.reconcile("shop")
        clock.forward(3600)
        await hub.put(cluster("east"))
        await hub.settle()
        await tell.reconcile("shop")
        assert (await hub.get(Project, "shop")).status.clusters[0].since == begun
        await hub.put(cluster("east", parts={"projects/shop": ""}))
        await hub.settle()
        await tell.reconcile("shop")
        done = (await hub.get(Project, "shop")).status.clusters[0]
        assert (done.state, done.since) == ("Applied", clock())


async def test_use_is_summed_over_clusters_and_written_now_and_then(clock):
    async with running(clock) as (hub, writer):
        await hub.put(cluster("east", parts={"projects/shop": ""}), cluster("west", parts={"projects/shop": ""}))
        shop = project("shop", "east/web", "west/web", "west/gone")
        shop.spec.quota = {"limits.memory": "9Gi"}
        await hub.write(writer, ADA, "create", shop)
        uid = (await hub.get(Project, "shop")).uid
        observed, times = Observed(), Times()
        tell = teller(hub, observed, times)
        observed.put("uid-east", seen("web", "other", project=uid, **{"limits.memory": "1Gi"}))
        observed.put("uid-west", seen("web", project="another", complete=True, **{"limits.memory": "5Gi"}))
        assert await tell.reconcile("shop") == DONE
        status = (await hub.get(Project, "shop")).status
        assert [(n.cluster, n.namespace, n.uid, n.used) for n in status.namespaces] == [
            ("east", "web", "uid-web", {"limits.memory": "1Gi"}), ("west", "web", "uid-web", {}), ("west", "gone", "", {}),
        ]  # fmt: skip
        assert status.used == {"limits.memory": "1Gi"}
        await hub.settle()
        observed.put("uid-west", seen("web", project=uid, **{"limits.memory": "512Mi"}))
        times.now += 4
        assert await tell.reconcile("shop") == After(6.0)
        times.now += 6
        assert await tell.reconcile("shop") == DONE
        stored = await hub.get(Project, "shop")
        assert stored.status.used == {"limits.memory": "1536Mi"}
        assert stored.metadata.generation == 1
        await hub.settle()
        lowered = {"spec": {"quota": {"limits.memory": "1Gi"}}}
        with pytest.raises(
            errors.Invalid, match=r'spec\.quota\[limits\.memory\]: Invalid value: "1Gi": 1536Mi is used'
        ):
            await hub.write(writer, ADA, "patch", "shop", plural="projects", body=lowered)


async def test_a_share_below_use_is_refused_and_an_equal_part_below_use_is_told(clock):
    async with running(clock) as (hub, writer):
        await hub.put(cluster("east", parts={"projects/shop": ""}))
        shop = project("shop", "east/a", "east/b")
        shop.spec.quota = {"pods": "10"}
        await hub.write(writer, ADA, "create", shop)
        observed = Observed()
        observed.put("uid-east", seen("a", project=(await hub.get(Project, "shop")).uid, pods="4"))
        await teller(hub, observed, Times()).reconcile("shop")
        entries = [n.to_document() for n in (await hub.get(Project, "shop")).spec.namespaces]
        entries[0] |= {"share": {"pods": "3"}, "equalShare": []}
        with pytest.raises(
            errors.Invalid, match=r'spec\.namespaces\[0\]\.share\[pods\]: Invalid value: "3": 4 is used'
        ):
            await hub.write(writer, ADA, "patch", "shop", plural="projects", body={"spec": {"namespaces": entries}})
        reply = await hub.write(
            writer, ADA, "patch", "shop", plural="projects", body={"spec": {"quota": {"pods": "6"}}}
        )
        assert any("the equal part is 3 now and 4 is used" in warning for warning in reply.warnings)


def test_only_a_complete_listing_says_that_a_namespace_is_gone():
    observed = Observed()
    assert observed.put("c", seen("a", "b")) == {"a", "b"}
    assert not observed.is_absent("c", "x")
    assert observed.put("c", seen("a")) == set()
    assert observed.get("c", "b") is not None
    assert observed.put("c", seen("d")) == {"d"}
    assert observed.put("c", seen(complete=True, present=("a", "d"))) == {"a", "b", "d"}
    assert observed.is_absent("c", "b")
    assert observed.put("c", seen("b", project="p")) == {"b"}
    assert not observed.is_absent("c", "b")
    observed.forget("c")
    assert not observed.is_absent("c", "b")


@given(st.permutations(["a", "b", "c"]), st.integers(1, 3))
def test_a_listing_in_several_messages_is_complete_with_the_last(names, size):
    observed = Observed()
    observed.put("c", seen("old"))
    for start in range(0, 3, size):
        observed.put("c", seen(*names[start : start + size]))
    assert observed.get("c", "old") is not None
    observed.put("c", seen(complete=True, present=tuple(names)))
    assert observed.get("c", "old") is None
    assert all(observed.get("c", name) is not None for name in names)


def test_a_listing_of_which_a_message_was_lost_says_nothing_is_gone_for_certain():
    for order in permutations(["a", "b"]):
        observed = Observed()
        observed.put("c", seen(order[0]))
        observed.put("c", seen(complete=True, present=("a", "b")))
        assert not observed.is_absent("c", "x")


async def test_who_is_told_when_what_changes(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("shop", "east/web", "west/db"))
        await hub.write(writer, ADA, "create", project("lab", "west/lab"))
        changes = []
        hub.informers["clusters"].subscribe(changes.append, replay=False)
        beat = cluster("west")
        for state in (beat, beat, cluster("west", parts={"projects/lab": ""})):
            await hub.put(state)
        told = [set(keys_of_applied(hub.objects(Project))(change)) for change in changes]
        assert told == [{"shop", "lab"}, set(), {"shop", "lab"}]
        gone: list[str] = []
        living = LivingClusters(hub.informers["clusters"], gone.append)
        assert living.names == {"uid-east": "east", "uid-west": "west"}
        await hub.delete(made.cluster("east"))
        assert gone == ["uid-east"]
        assert living.names == {"uid-west": "west"}


async def test_a_namespace_that_is_seen_is_told_to_its_project(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("shop", "east/web", "west/db"))
        async with asyncio.timeout(5):
            copy = Informer(hub.stores["project"], CLAIMS)
            following = asyncio.create_task(copy.run())
            await copy.synced.wait()
        assert keys_of_seen(copy, "east", ["web", "db", "x"]) == {"shop"}
        assert keys_of_seen(copy, "east", ["db"]) == set()
        await end([following])


@pytest.mark.parametrize("used", [{"pods": "1" * 65}, {"p" * 254: "1"}, {f"r{number}": "1" for number in range(65)}])
def test_an_agent_says_no_more_of_a_namespace_than_the_hub_keeps_of_each(used):
    with pytest.raises(ValidationError):
        NamespaceObservation(name="web", used=used)
