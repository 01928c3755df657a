"""What the hub is told of nodes: complete when it says so, small enough to be sent, silent when nothing worth telling changed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libs.common.bus.wire import pack
from libs.common.contracts.messages.agents import MAX_NODE_LABELS, MAX_NODE_TAINTS
from libs.common.resources.nodes import NodeStatus
from services.agent.observe_nodes import chunk_observations, pack_node, render_labels, render_node


def node(name: str = "n1", heartbeat: str = "2026-01-01T00:00:00Z", ready: str = "True", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {"node-role.kubernetes.io/control-plane": "", "x": "y"}},
        "spec": spec,
        "status": {
            "nodeInfo": {"kubeletVersion": "v1.36.3", "osImage": "Debian", "kernelVersion": "6.1", "architecture": "amd64",
                         "containerRuntimeVersion": "containerd://2"},
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "capacity": {"cpu": "2", "memory": "24Gi"}, "allocatable": {"cpu": "1900m"},
            "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletReady", "message": "ok",
                            "lastHeartbeatTime": heartbeat, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }  # fmt: skip


def test_a_node_becomes_the_fields_of_a_node_status() -> None:
    status = NodeStatus.model_validate(render_node(node(unschedulable=True)))
    assert (status.ready, status.unschedulable, status.roles) == (True, True, ["control-plane"])
    assert (status.internal_ip, status.kubelet_version, status.capacity["cpu"]) == ("10.0.0.1", "v1.36.3", "2")
    assert status.condition("Ready") is not None


def test_what_identifies_the_machine_and_where_it_is_are_told() -> None:
    status = NodeStatus.model_validate(render_node({
        "metadata": {"name": "n1", "labels": {}},
        "spec": {"providerID": "aws:///a/i-1", "podCIDRs": ["10.1.0.0/24"], "taints": [{"key": "b", "effect": "NoExecute"}, {"key": "a", "value": "v", "effect": "NoSchedule"}]},
        "status": {"nodeInfo": {"machineID": "m", "systemUUID": "s", "bootID": "b"}, "addresses": [{"type": "Hostname", "address": "h"}]},
    }))  # fmt: skip
    assert (status.provider_id, status.machine_id, status.system_uuid, status.boot_id) == (
        "aws:///a/i-1",
        "m",
        "s",
        "b",
    )
    assert (status.pod_cidrs, [t.key for t in status.taints], status.addresses[0].address) == (
        ["10.1.0.0/24"],
        ["a", "b"],
        "h",
    )


def test_too_many_labels_and_taints_are_cut_and_counted_and_those_of_kubernetes_stay() -> None:
    labels = {f"a{n:04}": "x" for n in range(1000)} | {
        "topology.kubernetes.io/zone": "z",
        "kubernetes.io.evil.com/x": "y",
    }
    kept, left_out = render_labels(labels)
    assert (len(kept), left_out) == (MAX_NODE_LABELS, 1002 - MAX_NODE_LABELS)
    assert kept["topology.kubernetes.io/zone"] == "z"
    taints = [{"key": f"k{n}", "effect": "NoSchedule"} for n in range(500)]
    rendered = render_node({"metadata": {"name": "n1"}, "spec": {"taints": taints}}, left_out)
    assert len(rendered["taints"]) == MAX_NODE_TAINTS
    assert rendered["leftOut"] == {"labels": 1002 - MAX_NODE_LABELS, "taints": 500 - MAX_NODE_TAINTS}


def test_the_resource_version_travels_with_a_node_and_is_no_news() -> None:
    old, new = node(), node()
    old["metadata"]["resourceVersion"], new["metadata"]["resourceVersion"] = "1", "2"
    assert pack_node(old) == pack_node(new)
    (message,) = chunk_observations({"n1": pack_node(new)}, complete=True, revisions={"n1": "2"})
    assert (message.nodes[0].revision, message.nodes[0].labels["x"]) == ("2", "y")


def test_ready_is_unknown_when_the_node_controller_says_so() -> None:
    assert NodeStatus.model_validate(render_node(node(ready="Unknown"))).ready is None
    assert NodeStatus.model_validate(render_node({"metadata": {"name": "bare"}})).ready is None


def test_kubelets_heartbeat_is_no_news_but_readiness_is() -> None:
    assert pack_node(node(heartbeat="2026-01-01T00:05:00Z")) == pack_node(node())
    assert pack_node(node(ready="False")) != pack_node(node())


@given(st.integers(0, 60), st.integers(200, 5000), st.booleans())
def test_chunks_fit_hold_every_node_once_and_only_the_last_closes_the_listing(
    count: int, limit: int, complete: bool
) -> None:
    nodes = {f"n{n}": pack_node(node(f"n{n}")) for n in range(count)}
    messages = chunk_observations(nodes, complete=complete, limit_bytes=limit)
    assert [o.name for m in messages for o in m.nodes] == list(nodes)
    if not complete:
        assert not any(m.complete for m in messages)
        return
    assert [m.complete for m in messages] == [False] * (len(messages) - 1) + [True]
    last = messages[-1]
    assert {*last.present, *(o.name for o in last.nodes)} == set(nodes)


def test_five_thousand_nodes_fit_what_an_agent_may_publish() -> None:
    names = [f"ip-10-0-{n // 256}-{n % 256}.eu-central-1.compute.internal" for n in range(5000)]
    messages = chunk_observations({name: pack_node(node(name)) for name in names}, complete=True)
    assert max(len(pack(m)) for m in messages) < 256 * 1024
    assert messages[-1].present == names
