"""The history of a node's machine, and who else says to be it: for whoever may get the node, and no names beyond that."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from libs.common.resources import codec
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.node_history import NodeChange, NodeHistory, history_key
from libs.common.resources.nodes import IDENTITY_COLLISION, Node, NodeSpec, NodeStatus
from libs.common.store.record import pack_record
from tests.gateway.support import OURS, Hub, real_monotonic

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DISK = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def make_node(cluster: str, name: str, *, collides: bool = True, disk: str = DISK) -> Node:
    status = NodeStatus(machine_id=disk, machine=f"m-{cluster}-{name}", ready=True)
    if collides:
        status.set_condition(IDENTITY_COLLISION, True, "ClonedIdentity", "machineID also on others", NOW)
    spec = NodeSpec(cluster=cluster, cluster_uid=f"uid-{cluster}", node_name=name, node_uid=f"uid-{name}")
    meta = ObjectMeta(name=f"{cluster}.{name}", uid=f"object-{name}", creation_timestamp=NOW, labels={"zone": name})
    return Node(metadata=meta, spec=spec, status=status)


def path(name: str) -> str:
    return f"/v1/nodes/{name}/history"


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        for node in (
            make_node("c1", "n1"), make_node("c1", "n2"), make_node("c1", "fine", collides=False), make_node("c2", "secret"),
            make_node("c1", "other", disk="a1b2c3d4e5f60718293a4b5c6d7e8f90"),
        ):  # fmt: skip
            await running.put(node)
        history = NodeHistory(
            machine="m-c1-n1", node_uid="uid-n1", dropped=3, changes=[NodeChange(time=NOW, what="ready", before="True", after="False")]
        )  # fmt: skip
        await running.stores["node_registry"].create(history_key("m-c1-n1"), pack_record(history.to_document()))
        yield running


async def test_a_history_is_for_whoever_may_get_the_node(hub):
    status, found = await hub.call("GET", path("c1.n1"), by="ann")
    assert (status, found["machine"], found["dropped"]) == (200, "m-c1-n1", 3)
    assert found["changes"] == [
        {"time": "2026-01-02T00:00:00Z", "what": "ready", "before": "True", "after": "False", "count": 1}
    ]
    for name in ("c2.secret", "c1.nobody"):
        status, denied = await hub.call("GET", path(name), by="ann")
        assert status == 404
        assert "m-c2" not in str(denied)
    assert (await hub.call("GET", path("c1.n1"), by="bob"))[0] == 403


async def test_others_with_the_same_identity_are_named_as_far_as_the_caller_sees_them(hub):
    assert (await hub.call("GET", path("c1.n1"), by="root"))[1]["sameIdentity"] == ["c1.n2", "c2.secret"]
    assert (await hub.call("GET", path("c1.n1"), by="ann"))[1]["sameIdentity"] == ["c1.n2"]
    assert (await hub.call("GET", path("c1.fine"), by="root"))[1]["sameIdentity"] == []


async def test_only_nodes_that_may_be_the_same_are_read_however_many_collide(hub, monkeypatch):
    dashed = make_node("c1", "dashed", disk="0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0")
    for node in (
        dashed,
        *(make_node("c1", f"pair{n}", disk=f"{n:04x}2d3c4b5a69788796a5b4c3d2e1f0") for n in range(20)),
    ):
        await hub.put(node)
    read, decode = [], codec.decode

    def counted(model, value, revision):
        read.append(model)
        return decode(model, value, revision)

    monkeypatch.setattr("services.gateway.nodes.codec.decode", counted)
    found = (await hub.call("GET", path("c1.n1"), by="root"))[1]["sameIdentity"]
    assert found == ["c1.dashed", "c1.n2", "c2.secret"]
    assert read.count(Node) <= 4


async def test_a_node_without_a_history_has_an_empty_one_and_never_that_of_its_machines_next_registration(hub):
    assert (await hub.call("GET", path("c1.n2"), by="root"))[1]["changes"] == []
    left = make_node("c1", "left")
    left.status.machine = "m-c1-n1"
    await hub.put(left)
    assert (await hub.call("GET", path("c1.left"), by="root"))[1]["changes"] == []


async def test_nodes_are_selected_by_their_own_labels_and_their_machine(hub):
    for query in ("labelSelector=zone%3Dn2", "fieldSelector=status.machine%3Dm-c1-n2"):
        _, found = await hub.call("GET", f"{OURS}/nodes?{query}", by="ann")
        assert [item["metadata"]["name"] for item in found["items"]] == ["c1.n2"]


async def test_a_table_shows_the_collision_and_wide_columns(hub):
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    _, table = await hub.call("GET", f"{OURS}/nodes", by="ann", headers=accept)
    names = [column["name"] for column in table["columnDefinitions"]]
    assert {"Status", "Machine", "Zone", "Instance-Type", "Taints", "Reboots"} <= set(names)
    rows = {row["cells"][0]: row["cells"] for row in table["rows"]}
    assert rows["c1.n1"][names.index("Status")] == "Ready,IdentityCollision"
    assert rows["c1.fine"][names.index("Status")] == "Ready"
