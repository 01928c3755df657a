from __future__ import annotations

import pytest

from libs.common import errors
from libs.common.contracts.messages import NodesObserved
from services.node_registry import rules
from services.node_registry.inbox import MAX_NODES, Inbox
from services.node_registry.reconciler import LAST_OBSERVED_EVERY_S, keys_of_cluster, keys_of_node
from tests.access import made
from tests.node_registry.made import EAST, listing, running, seen


async def test_a_node_is_named_after_its_cluster_and_keeps_its_uids(clock):
    async with running(clock) as r:
        await r.observe(listing(seen()))
        node = await r.node()
        assert (node.spec.cluster, node.spec.cluster_uid, node.spec.node_name, node.spec.node_uid) == (
            "east",
            EAST.uid,
            "n1",
            "u1",
        )
        assert node.status.ready
        assert node.status.last_observed == clock()


async def test_a_node_is_written_only_when_it_changed_or_now_and_then(clock):
    async with running(clock) as r:
        await r.observe(listing(seen()))
        first = (await r.node()).metadata.resource_version
        clock.forward(10)
        await r.observe(listing(seen()))
        assert (await r.node()).metadata.resource_version == first
        await r.observe(NodesObserved(nodes=[seen(ready=False)]))
        second = await r.node()
        assert second.metadata.resource_version != first
        assert second.status.ready is False
        assert second.metadata.generation == 1
        clock.forward(LAST_OBSERVED_EVERY_S)
        await r.observe(NodesObserved(nodes=[seen(ready=False)]))
        assert (await r.node()).status.last_observed == clock()


async def test_only_a_complete_listing_removes_nodes(clock):
    async with running(clock) as r:
        await r.observe(listing(seen("n1"), seen("n2"), seen("n3")))
        await r.observe(NodesObserved(nodes=[seen("n1")]))
        assert r.names() == {"east.n1", "east.n2", "east.n3"}
        await r.observe(listing(seen("n1"), present=["n1", "n3"]))
        assert r.names() == {"east.n1", "east.n3"}
        await r.observe(listing())
        assert r.names() == set()


async def test_a_listing_in_several_messages_keeps_all_of_them(clock):
    async with running(clock) as r:
        r.inbox.put(EAST.uid, NodesObserved(nodes=[seen("n1")]))
        r.inbox.put(EAST.uid, NodesObserved(nodes=[seen("n2")]))
        await r.observe(listing(present=["n1", "n2"]))
        assert r.names() == {"east.n1", "east.n2"}


async def test_a_machine_made_again_is_another_object(clock):
    async with running(clock) as r:
        await r.observe(listing(seen(uid="u1")))
        before = await r.node()
        await r.observe(listing(seen(uid="u2")))
        after = await r.node()
        assert after.uid != before.uid
        assert after.spec.node_uid == "u2"


async def test_an_agent_of_an_unknown_cluster_writes_nothing(clock):
    async with running(clock) as r:
        await r.observe(listing(seen()), uid="uid-of-a-stranger")
        assert r.names() == set()


async def test_nodes_go_with_their_cluster_and_not_before(clock):
    async with running(clock) as r:
        west = made.cluster("west")
        await r.hub.put(west)
        await r.observe(listing(seen()))
        await r.observe(listing(seen()), uid=west.uid)
        await r.hub.delete(EAST)
        await r.observe(NodesObserved(nodes=[seen("late")]))
        assert r.names() == {"west.n1"}


async def test_a_copy_that_is_behind_costs_no_nodes(clock):
    async with running(clock) as r:
        await r.observe(listing(seen()))
        del r.view.names[EAST.uid]
        with pytest.raises(errors.Unavailable):
            await r.reconciler.reconcile(EAST.uid)
        assert r.names() == {"east.n1"}


async def test_a_cluster_made_again_begins_without_nodes(clock):
    async with running(clock) as r:
        await r.observe(listing(seen("n1"), seen("n2")))
        await r.hub.delete(EAST)
        again = made.cluster("east", "uid-again")
        await r.hub.put(again)
        await r.observe(listing(seen("n1", uid="other")), uid="uid-again")
        await r.reconciler.reconcile(EAST.uid)
        await r.hub.settle()
        assert r.names() == {"east.n1"}
        assert (await r.node()).spec.cluster_uid == "uid-again"


async def test_what_could_not_be_written_is_tried_again(clock, monkeypatch):
    async with running(clock) as r:
        create = r.hub.stores["node_registry"].create

        async def refuse(*_args, **_kwargs):
            raise errors.Unavailable("no leader")

        monkeypatch.setattr(r.hub.stores["node_registry"], "create", refuse)
        r.inbox.put(EAST.uid, listing(seen("n1")))
        with pytest.raises(errors.Unavailable):
            await r.reconciler.reconcile(EAST.uid)
        monkeypatch.setattr(r.hub.stores["node_registry"], "create", create)
        await r.observe(NodesObserved(nodes=[seen("n2")]))
        assert r.names() == {"east.n1", "east.n2"}


@pytest.mark.parametrize(
    "bad",
    [
        seen(name="../etc"), seen(name="UPPER"), seen(name="x" * 250), seen(roles="not a list"),
        seen(osImage="x" * 5000), seen(capacity={str(n): "1" for n in range(300)}), seen(capacity={str(n): "x" * 4000 for n in range(20)}),
        seen(addresses=[[[[[[[[]]]]]]]]),
    ],
)  # fmt: skip
async def test_a_strange_observation_is_refused_and_the_others_written(clock, bad):
    async with running(clock) as r:
        await r.observe(NodesObserved(nodes=[bad, seen("good")]))
        assert r.names() == {"east.good"}


def test_memory_is_bounded_and_a_cut_listing_removes_nothing():
    inbox = Inbox()
    refused = inbox.put("c", listing(*(seen(f"n{i}") for i in range(MAX_NODES + 5))))
    pending = inbox.take("c")
    assert refused == 5
    assert len(pending.nodes) == MAX_NODES
    assert pending.listed is None


async def test_what_was_left_while_the_service_was_away_is_found_at_start(clock):
    async with running(clock) as r:
        await r.observe(listing(seen()))
        await r.hub.delete(EAST)
        keys = []
        r.hub.informers["nodes"].subscribe(lambda c: keys.extend(keys_of_node(r.view)(c)), replay=True)
        assert keys == [EAST.uid]


async def test_the_key_of_a_deleted_cluster_is_its_uid(clock):
    async with running(clock) as r:
        keys = []
        r.hub.informers["clusters"].subscribe(lambda c: keys.extend(keys_of_cluster(c)), replay=True)
        await r.hub.delete(EAST)
        assert keys == [EAST.uid]


def test_a_nodes_name_must_fit():
    assert rules.node_name("east", "n1.example.com") == "east.n1.example.com"
    assert rules.node_name("east", "x" * 250) is None


async def test_a_cluster_has_so_many_nodes_however_many_messages_tell_of_more(clock, monkeypatch):
    monkeypatch.setattr("services.node_registry.reconciler.MAX_NODES", 3)
    async with running(clock) as r:
        for n in range(5):
            await r.observe(NodesObserved(nodes=[seen(f"n{n}", uid=f"u{n}")]))
        assert r.names() == {"east.n0", "east.n1", "east.n2"}
        await r.observe(NodesObserved(nodes=[seen("n1", uid="again"), seen("n4", uid="u4")]))
        assert (await r.node("east.n1")).spec.node_uid == "again"
        await r.observe(listing(seen("n4", uid="u4")))
        assert r.names() == {"east.n4"}


@pytest.mark.parametrize("uid", ["u" * 65, "u\x1b[2J", "u 1", "\u202eu"])
async def test_a_node_with_a_uid_that_no_cluster_gives_is_refused(clock, uid):
    async with running(clock) as r:
        await r.observe(listing(seen("n1", uid=uid), seen("n2", uid="5b0b3f2f-3f63-4a0e-9a1e-8b9f0a1b2c3d")))
        assert r.names() == {"east.n2"}
