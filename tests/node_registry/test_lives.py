"""The lives of machines through the whole registry: rename, registering anew, reboot, clones; late, doubled and strange messages."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common import errors
from libs.common.contracts.messages import NodesObserved
from libs.common.reconcile import After
from libs.common.resources import codec
from libs.common.resources.node_history import history_key
from services.node_registry import rules
from services.node_registry.view import MAX_SHARING
from tests.access import made
from tests.node_registry.made import EAST, Registry, listing, running, seen

IDS = {"systemUUID": "ec2a1b3c-7f10-4a57-9d5e-0a1b2c3d4e5f", "machineID": "0f1e2d3c4b5a69788796a5b4c3d2e1f0"}
CLONED = {"machineID": IDS["machineID"]}
WEST = made.cluster("west")


def whats(history):
    return [(c.what, c.after) for c in history.changes]


async def test_a_machine_that_registers_anew_goes_on_where_it_was(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(uid="u1", bootID="b1", **IDS)))
        first = await r.node()
        clock.forward(1000)
        await r.observe(listing(seen(uid="u2", bootID="b1", **IDS)))
        again = await r.node()
        assert again.uid != first.uid
        assert (again.status.machine, again.status.first_seen) == (first.status.machine, first.status.first_seen)
        assert whats(await r.history()) == [("node", "n1 registered"), ("node", "n1 registered")]


async def test_a_renamed_machine_keeps_its_history_and_the_old_object_is_gone(clock):
    async with running(clock) as r:
        await r.observe(listing(seen("n1", bootID="b1", **IDS)))
        machine = (await r.node()).status.machine
        clock.forward(100)
        await r.observe(listing(seen("n2", uid="u2", bootID="b2", **IDS)))
        assert r.names() == {"east.n2"}
        renamed = await r.node("east.n2")
        assert (renamed.status.machine, renamed.status.former_names, renamed.status.reboots) == (machine, ["n1"], 1)
        assert whats(await r.history("east.n2")) == [
            ("node", "n1 registered"), ("node", "removed"), ("node", "n2 registered"), ("boot", "b2")
        ]  # fmt: skip


async def test_a_machine_that_was_away_is_known_again_also_by_a_service_that_started_meanwhile(clock):
    async with running(clock) as r:
        await r.observe(listing(seen("n1", bootID="b1", **IDS)))
        machine = (await r.node()).status.machine
        await r.observe(listing())
        fresh = Registry(r.hub)
        for entry in r.hub.stores["node_registry"]._last.values():
            if entry.deleted:
                fresh.view._on_listed(entry)
        await fresh.observe(listing(seen("n9", uid="u9", bootID="b1", **IDS)))
        assert (await r.node("east.n9")).status.machine == machine


async def test_a_machine_is_known_again_also_when_its_node_says_only_later_what_it_is(clock):
    async with running(clock) as r:
        await r.observe(listing(seen("n1", bootID="b1", **IDS)))
        machine = (await r.node()).status.machine
        await r.observe(listing())
        await r.observe(listing(seen("n2", uid="u2")))
        provisional = (await r.node("east.n2")).status.machine
        assert provisional != machine
        await r.observe(NodesObserved(nodes=[seen("n2", uid="u2", bootID="b2", **IDS)]))
        known = await r.node("east.n2")
        assert (known.status.machine, known.status.former_names, known.status.reboots) == (machine, ["n1"], 1)
        assert whats(await r.history("east.n2"))[-2:] == [("node", "n2 registered"), ("boot", "b2")]


async def test_a_reboot_is_counted_once_and_says_since_when(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(bootID="b1")))
        clock.forward(50)
        for _ in range(3):
            await r.observe(NodesObserved(nodes=[seen(bootID="b2")]))
        assert (await r.node()).status.reboots == 1
        assert (await r.node()).status.booted_at == clock()
        await r.observe(NodesObserved(nodes=[seen(bootID="")]))
        await r.observe(NodesObserved(nodes=[seen(bootID="b2")]))
        assert (await r.node()).status.reboots == 1
        assert [c.after for c in (await r.history()).changes if c.what == "boot"] == ["b2"]


async def test_clones_are_shown_on_both_and_no_longer_when_one_went(clock):
    async with running(clock) as r:
        await r.observe(listing(seen("n1", bootID="b1", **CLONED), seen("n2", uid="u2", bootID="b2", **CLONED)))
        await r.collide()
        assert (await r.node("east.n1")).status.machine != (await r.node("east.n2")).status.machine
        assert '"n2"' in await r.collision("east.n1")
        assert '"n1"' in await r.collision("east.n2")
        before = (await r.node("east.n1")).metadata.resource_version
        await r.observe(listing(seen("n1", bootID="b1", **CLONED), seen("n2", uid="u2", bootID="b2", **CLONED)))
        await r.collide()
        assert (await r.node("east.n1")).metadata.resource_version == before
        await r.observe(listing(seen("n1", bootID="b1", **CLONED)))
        await r.collide()
        assert await r.collision("east.n1") == ""


async def test_a_clone_in_another_cluster_is_told_without_its_name(clock):
    async with running(clock) as r:
        await r.hub.put(WEST)
        await r.observe(listing(seen("n1", bootID="b1", **CLONED)))
        await r.observe(listing(seen("hidden", uid="u2", bootID="b2", **CLONED)), uid=WEST.uid)
        await r.collide()
        for name in ("east.n1", "west.hidden"):
            said = await r.collision(name)
            assert "nodes of other clusters" in said
            assert not {"hidden", "n1", "east", "west"} & set(said.replace('"', " ").replace(",", " ").split())


async def test_a_collision_ends_when_nothing_is_heard_of_the_other_cluster(clock):
    async with running(clock) as r:
        await r.hub.put(WEST)
        await r.observe(listing(seen("n1", bootID="b1", **CLONED)))
        await r.observe(listing(seen("n2", uid="u2", bootID="b2", **CLONED)), uid=WEST.uid)
        await r.collide()
        for _ in range(4):
            clock.forward(301)
            await r.observe(listing(seen("n1", bootID="b1", **CLONED)))
        await r.collisions.reconcile("east.n1")
        assert await r.collision("east.n1") == ""


async def test_an_agent_cannot_say_what_only_the_hub_says(clock):
    async with running(clock) as r:
        forged = {
            "type": "IdentityCollision",
            "status": "True",
            "reason": "X",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        await r.observe(
            listing(seen(machine="m-forged", reboots=9, firstSeen="2020-01-01T00:00:00Z", conditions=[forged]))
        )
        status = (await r.node()).status
        assert status.machine != "m-forged"
        assert (status.reboots, status.first_seen, status.conditions) == (0, clock(), [])


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_older_observation_does_not_win(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(revision=20, ready=False)))
        await r.observe(NodesObserved(nodes=[seen(revision=10, ready=True)]))
        assert (await r.node()).status.ready is False


async def test_a_listing_from_before_a_node_came_does_not_remove_it(clock):
    async with running(clock) as r:
        await r.observe(NodesObserved(nodes=[seen("n2", revision=20)]))
        await r.observe(listing(revision=15))
        assert r.names() == {"east.n2"}
        await r.observe(listing(revision=25))
        assert r.names() == set()


async def test_a_late_message_does_not_bring_back_a_node_that_went(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(revision=10), revision=10))
        await r.observe(listing(revision=12))
        await r.observe(NodesObserved(nodes=[seen(revision=10)]))
        assert r.names() == set()
        clock.forward(rules.OVERTAKEN_S)
        await r.observe(NodesObserved(nodes=[seen(revision=10)]))
        assert r.names() == {"east.n1"}


async def test_a_late_message_of_the_registration_before_does_not_undo_the_one_after(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(uid="u1", revision=10), revision=10))
        await r.observe(listing(seen(uid="u2", revision=20), revision=20))
        await r.observe(NodesObserved(nodes=[seen(uid="u1", revision=10)]))
        assert (await r.node()).spec.node_uid == "u2"


async def test_a_cluster_that_was_set_back_to_a_backup_is_believed_after_a_while(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(revision=1000, ready=False), revision=1000))
        await r.observe(listing(seen(revision=5), revision=5))
        assert (await r.node()).status.ready is False
        clock.forward(rules.OVERTAKEN_S)
        await r.observe(listing(seen(revision=5), revision=5))
        assert (await r.node()).status.ready is True


@given(st.permutations([1, 2, 3, 4, 5, 5, 2]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_in_any_order_and_doubled_the_newest_stands_and_each_replica_agrees(clock, order):
    async with running(clock) as r:
        replicas = [r, Registry(r.hub)]
        for number, revision in enumerate(order):
            replica = replicas[number % 2]
            await replica.observe(NodesObserved(nodes=[seen(revision=revision, kubeletVersion=f"v{revision}")]))
        assert (await r.node()).status.kubelet_version == "v5"
        history = await r.history()
        assert sum(c.what == "node" for c in history.changes) == 1
        kubelet = [c for c in history.changes if c.what == "kubeletVersion"]
        assert not kubelet or kubelet[-1].after == "v5"


# ── noise, crashes, strange input ────────────────────────────────────────────────────────────────────────────────────


async def test_a_write_that_was_cut_short_is_told_once(clock, monkeypatch):
    async with running(clock) as r:
        await r.observe(listing(seen()))
        update, calls = r.hub.stores["node_registry"].update, []

        async def cut(key, *rest, **more):
            calls.append(key)
            if key.startswith("nodes."):
                raise errors.Unavailable("no leader")
            return await update(key, *rest, **more)

        monkeypatch.setattr(r.hub.stores["node_registry"], "update", cut)
        r.inbox.put(EAST.uid, NodesObserved(nodes=[seen(kubeletVersion="v2")]))
        with pytest.raises(errors.Unavailable):
            await r.reconciler.reconcile(EAST.uid)
        monkeypatch.setattr(r.hub.stores["node_registry"], "update", update)
        await r.reconciler.reconcile(EAST.uid)
        await r.hub.settle()
        assert (await r.node()).status.kubelet_version == "v2"
        assert [(c.what, c.count) for c in (await r.history()).changes] == [("node", 1), ("kubeletVersion", 1)]


async def test_being_seen_again_is_no_change_and_reads_no_history(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(revision=1)))
        key = history_key((await r.node()).status.machine)
        before = await r.hub.stores["node_registry"].get(key)
        for revision in range(2, 9):
            clock.forward(301)
            await r.observe(listing(seen(revision=revision)))
        assert (await r.hub.stores["node_registry"].get(key)).revision == before.revision
        assert (await r.node()).status.observed_revision == "8"


async def test_who_changes_all_the_time_is_written_now_and_then_and_the_last_word_counts(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(labels={"t": "0"})))
        start = int((await r.node()).metadata.resource_version or 0)
        outcomes = [await r.observe(NodesObserved(nodes=[seen(labels={"t": str(n)})])) for n in range(1, 40)]
        assert any(isinstance(o, After) for o in outcomes)
        assert int((await r.node()).metadata.resource_version or 0) - start < 20
        clock.forward(200)
        await r.reconciler.reconcile(EAST.uid)
        await r.hub.settle()
        assert (await r.node()).metadata.labels == {"t": "39"}


async def test_a_cluster_that_registers_machines_all_the_time_leaves_no_more_than_one_a_second(clock):
    async with running(clock) as usual:
        r = Registry(usual.hub, at_once=3)
        for n in range(6):
            outcome = await r.observe(listing(seen("n1", uid=f"u{n}")))
        assert (await r.node("east.n1")).spec.node_uid == "u2"
        assert isinstance(outcome, After)
        # Changes of a node that is there, and other clusters, wait for nothing.
        await r.observe(listing(seen("n1", uid="u2", kubeletVersion="v9")))
        assert (await r.node("east.n1")).status.kubelet_version == "v9"
        clock.forward(1)
        await r.observe(listing(seen("n1", uid="u7")))
        assert (await r.node("east.n1")).spec.node_uid == "u7"


async def test_strange_texts_are_made_harmless_and_too_much_is_cut_and_said(clock):
    async with running(clock) as r:
        labels = {f"l{n}": "x" for n in range(5000)} | {
            "bad key\x1b[31m": "x",
            "fine": "no\nnewline",
            "example.com/ok": "yes",
        }
        await r.observe(listing(seen(osImage="\x1b[31mDebian\u202e\x00", labels=labels)))
        node = await r.node()
        assert node.status.os_image == "\ufffd[31mDebian\ufffd\ufffd"
        assert len(node.metadata.labels) == 128
        assert node.metadata.labels["example.com/ok"] == "yes"
        assert node.status.left_out["labels"] == 5003 - 128


async def test_a_condition_from_the_future_changed_when_we_heard_of_it(clock):
    async with running(clock) as r:
        pressure = {
            "type": "DiskPressure",
            "status": "True",
            "reason": "x",
            "lastTransitionTime": "9999-01-01T00:00:00Z",
        }
        await r.observe(listing(seen(conditions=[pressure])))
        first = await r.node()
        assert first.status.condition("DiskPressure").last_transition_time == clock()
        clock.forward(60)
        await r.observe(listing(seen(conditions=[pressure])))
        assert (await r.node()).metadata.resource_version == first.metadata.resource_version


async def test_five_thousand_nodes_are_taken_in(clock):
    async with running(clock) as r:
        nodes = [
            seen(f"n{n}", uid=f"u{n}", bootID=f"b{n}", machineID=f"{n:04x}0f1e2d3c4b5a69788796a5b4c3d2")
            for n in range(5000)
        ]
        await r.observe(listing(*nodes))
        assert len(r.names()) == 5000
        assert len({f.machine for f in r.view.facts.values()}) == 5000


async def test_ever_so_many_clones_are_told_and_cost_each_no_more_than_some(clock):
    async with running(clock) as r:
        await r.hub.put(WEST)
        heard = []
        r.view.subscribe(heard.append)
        many = [seen(f"c{n:03}", uid=f"w{n}", bootID="b", **CLONED) for n in range(4 * MAX_SHARING)]
        for uid in (WEST.uid, EAST.uid):
            await r.observe(listing(*many), uid=uid)
        assert len(heard) <= 2 * len(many) * (2 * MAX_SHARING + 1)
        ids = r.view.facts["east.c000"].identifiers
        assert len(r.view.sharing(ids, EAST.uid)) <= 2 * MAX_SHARING
        await r.collide()
        assert all([await r.collision(name) for name in ("east.c000", "east.c255", "west.c000", "west.c255")])
        await r.observe(listing())
        assert len(r.view.gone_sharing(EAST.uid, ids)) <= MAX_SHARING * len(ids)


async def test_many_clones_elsewhere_do_not_hide_those_of_the_own_cluster(clock):
    async with running(clock) as r:
        await r.hub.put(WEST)
        many = [seen(f"a{n:03}", uid=f"w{n}", bootID=f"b{n}", **CLONED) for n in range(2 * MAX_SHARING)]
        await r.observe(listing(*many), uid=WEST.uid)
        await r.observe(listing(*(seen(f"n{n}", uid=f"u{n}", bootID=f"e{n}", **CLONED) for n in (1, 2))))
        await r.collide()
        said = await r.collision("east.n1")
        assert '"n2" and nodes of other clusters' in said
        await r.observe(listing(seen("n1", uid="u1", bootID="e1", **CLONED)))
        await r.observe(listing(), uid=WEST.uid)
        await r.collide()
        assert await r.collision("east.n1") == ""


async def test_a_usual_node_and_what_it_leaves_in_memory_stay_small(clock):
    async with running(clock) as r:
        await r.observe(listing(usual()))
        size = len(codec.encode(await r.node("east.ip-10-0-1-17.eu-central-1.compute.internal")))
        assert size < 3000
        assert len(msgpack.packb(usual().model_dump())) < size


def usual():
    """As a node of a cloud reports itself."""
    condition = {"status": "False", "reason": "KubeletHasSufficientMemory", "message": "kubelet has sufficient memory available",
                 "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    amounts = {
        "cpu": "8",
        "memory": "32386548Ki",
        "pods": "110",
        "ephemeral-storage": "101430960Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    }
    labels = {f"topology.kubernetes.io/l{n}": "eu-central-1a" for n in range(15)}
    return seen(
        "ip-10-0-1-17.eu-central-1.compute.internal", revision=123456, labels=labels, osImage="Debian GNU/Linux 13 (trixie)", kernelVersion="6.12.1",
        containerRuntime="containerd://2.1.4", architecture="amd64", operatingSystem="linux", providerID="aws:///eu-central-1a/i-0123456789abcdef0",
        bootID="5b0b3f2f-3f63-4a0e-9a1e-8b9f0a1b2c3d", capacity=amounts, allocatable=amounts, internalIP="10.0.1.17", podCIDRs=["10.244.3.0/24"],
        addresses=[{"type": "InternalIP", "address": "10.0.1.17"}, {"type": "Hostname", "address": "ip-10-0-1-17.eu-central-1.compute.internal"}],
        conditions=[{**condition, "type": t} for t in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready")], **IDS,
    )  # fmt: skip
