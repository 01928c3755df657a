"""Security policies, from the hub into a real cluster: warned of first, tried on what is there, then refused; put right, and taken away again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.harness.hub import Hub, Person, eventually

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(300)]
MESSAGE = "every ConfigMap names its team"


def admission(name: str, expression: str, **more: Any) -> bytes:
    spec = {
        "clusters": {"selector": {"matchLabels": {"zone": name}}},
        "exemptNamespaces": ["free"],
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["configmaps"],
                    "operations": ["CREATE", "UPDATE"],
                }
            ],
            "namespaceSelector": {"matchExpressions": [{"key": "policies", "operator": "In", "values": [name]}]},
        },
        "validations": [{"expression": expression, "message": MESSAGE}],
        **more,
    }
    document = {"apiVersion": "management.herdsman.dev/v1", "kind": "AdmissionPolicy", "metadata": {"name": name}}
    return json.dumps({**document, "spec": spec}).encode()


async def cluster_of(person: Person, plural: str, name: str) -> dict[str, Any]:
    document = json.loads(await person.sees("herdsman", "get", plural, name, "-o", "json"))
    found: list[dict[str, Any]] = document.get("status", {}).get("clusters", [])
    return found[0] if found else {}


async def is_state(person: Person, plural: str, name: str, state: str, **more: Any) -> dict[str, Any]:
    async def check() -> Any:
        found = await cluster_of(person, plural, name)
        return found if found.get("state") == state and all(found.get(k) == v for k, v in more.items()) else None

    return dict(await eventually(check, 60))


CLUSTER = {"apiVersion": "management.herdsman.dev/v1", "kind": "Cluster", "metadata": {"name": "far"}}
TEAM = "has(object.metadata.labels) && 'team' in object.metadata.labels"


async def test_a_policy_warns_first_names_offenders_then_refuses_is_guarded_and_goes_with_the_label(hub: Hub):
    admin = await hub.admin()
    for name in ("ruled", "free"):
        await admin.sees("local", "create", "namespace", name)
        await admin.sees("local", "label", "namespace", name, "policies=teams")
    await admin.sees("local", "create", "configmap", "old", "-n", "ruled")
    await admin.sees("herdsman", "label", "cluster", "local", "zone=teams")

    # At once it may not begin to refuse, and what selects everything is refused with its field.
    refused = await admin.kubectl("herdsman", "apply", "-f", "-", stdin=admission("teams", TEAM, stage="Enforce"))
    assert "spec.stage: Forbidden: what it refuses has not stood in Audit" in refused.err
    refused = await admin.kubectl(
        "herdsman", "apply", "-f", "-", stdin=admission("teams", TEAM, clusters={"selector": {}})
    )
    assert "spec.clusters.selector: Invalid value: it selects every cluster" in refused.err

    await admin.sees("herdsman", "apply", "-f", "-", stdin=admission("teams", TEAM))
    there = await is_state(admin, "admissionpolicies", "teams", "Applied", violations=2)
    assert there["generation"] == 1
    trial = await admin.must("policy", "trial", "teams")
    assert "ruled" in trial
    assert "old" in trial
    assert MESSAGE in trial
    warned = await admin.kubectl("local", "create", "configmap", "let-in", "-n", "ruled")
    assert warned.code == 0
    assert MESSAGE in warned.err

    refused = await admin.herdsman("policy", "enforce", "teams")
    assert refused.code != 0
    assert "objects violate it" in refused.err
    await admin.must("policy", "enforce", "teams", "--although-violated")
    await is_state(admin, "admissionpolicies", "teams", "Applied", generation=2)

    async def is_refused() -> bool:
        made = await admin.kubectl("local", "create", "configmap", "bad", "-n", "ruled", "--dry-run=server")
        return made.code != 0 and MESSAGE in made.err

    await eventually(is_refused, 30)
    await admin.sees("local", "create", "configmap", "bad", "-n", "free")

    # Somebody who may do everything in the cluster takes its teeth: put right within seconds, and to be seen.
    defanged = json.dumps({"spec": {"validationActions": ["Audit"]}})
    await admin.sees(
        "local", "patch", "validatingadmissionpolicybinding", "herdsman-teams", "--type=merge", "-p", defanged
    )
    await eventually(is_refused, 30)
    drifted = await is_state(admin, "admissionpolicies", "teams", "Drifted")
    assert "herdsman-teams" in drifted["message"]
    table = await admin.sees("herdsman", "get", "admissionpolicies", "teams", "-o", "wide")
    assert "Enforce" in table
    assert "True" in table

    # Without the label it is gone.
    await admin.sees("herdsman", "label", "cluster", "local", "zone-")

    async def is_gone() -> bool:
        found = await admin.sees("local", "get", "validatingadmissionpolicies,clusterroles", "-o", "name")
        return "herdsman-teams" not in found and "policy-trial:teams" not in found

    await eventually(is_gone, 30)

    async def is_let_in() -> bool:
        return (await admin.kubectl("local", "create", "configmap", "bad", "-n", "ruled", "--dry-run=server")).code == 0

    await eventually(is_let_in, 30)
    await admin.sees("herdsman", "delete", "admissionpolicy", "teams")

    async def is_forgotten() -> bool:
        return "teams" not in await admin.sees("herdsman", "get", "policytrials", "-o", "name")

    await eventually(is_forgotten, 20)


async def test_wrong_cel_is_told_in_the_clusters_own_words(hub: Hub):
    admin = await hub.admin()
    everywhere = {"clusters": {"names": ["local"]}}
    await admin.sees("herdsman", "apply", "-f", "-", stdin=admission("syntax", "object.metadata.(", **everywhere))
    failed = await is_state(admin, "admissionpolicies", "syntax", "Failed")
    assert "compilation failed" in failed["message"]
    typed = "object.data.size() > 0 && object.metadata.nme == 'x'"
    await admin.sees("herdsman", "apply", "-f", "-", stdin=admission("types", typed, **everywhere))
    failed = await is_state(admin, "admissionpolicies", "types", "Failed")
    assert "undefined field 'nme'" in failed["message"]
    await admin.sees("herdsman", "delete", "admissionpolicy", "syntax", "types")


async def test_labelling_a_cluster_out_of_a_policy_takes_the_right_to_change_the_policy(hub: Hub):
    admin, owen = await hub.admin(), await hub.person("owen")
    await admin.must("grant", "--user", "owen", "--role", "cluster-owner", "--cluster", "local")
    await admin.sees("herdsman", "label", "cluster", "local", "zone=kept", "tier=one")
    await admin.sees("herdsman", "apply", "-f", "-", stdin=admission("kept", TEAM))
    await owen.fetch_kubeconfig()
    refused = await owen.kubectl("herdsman", "label", "cluster", "local", "zone-")
    assert 'the AdmissionPolicy "kept" would cease to count in it' in refused.err
    await owen.sees("herdsman", "label", "cluster", "local", "tier-")
    refused = await owen.kubectl("herdsman", "apply", "-f", "-", stdin=admission("mine", TEAM))
    assert "forbidden" in refused.err
    await admin.sees("herdsman", "delete", "admissionpolicy", "kept")
    await owen.sees("herdsman", "label", "cluster", "local", "zone-")


def pod(name: str, **security: Any) -> bytes:
    container = {"name": "c", "image": "registry.invalid/none:1", "securityContext": security}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    return json.dumps(document).encode()


async def test_a_template_labels_namespaces_privileged_pods_are_refused_and_all_is_put_back(hub: Hub):
    admin = await hub.admin()
    for name in ("plain", "spared", "strict"):
        await admin.sees("local", "create", "namespace", name)
    await admin.sees("local", "label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    await admin.sees("local", "create", "-n", "plain", "-f", "-", stdin=pod("loud", privileged=True))
    spec = {
        "clusters": {"names": ["local"]}, "exemptNamespaces": ["spared"], "enforce": {"level": "baseline"},
    }  # fmt: skip
    template = {
        "apiVersion": "management.herdsman.dev/v1",
        "kind": "PodSecurityTemplate",
        "metadata": {"name": "base"},
        "spec": spec,
    }
    await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(template).encode())
    tried = await is_state(admin, "podsecuritytemplates", "base", "Applied", violations=1)
    assert tried["looked"] >= 3
    trial = await admin.must("policy", "trial", "base")
    assert "loud" in trial
    warned = await admin.kubectl("local", "create", "-n", "plain", "-f", "-", stdin=pod("second", privileged=True))
    assert warned.code == 0
    assert "would violate PodSecurity" in warned.err

    await admin.must("policy", "enforce", "base", "--although-violated")
    await is_state(admin, "podsecuritytemplates", "base", "Applied", generation=2)
    refused = await admin.kubectl("local", "create", "-n", "plain", "-f", "-", stdin=pod("third", privileged=True))
    assert 'violates PodSecurity "baseline:latest"' in refused.err
    await admin.sees("local", "create", "-n", "spared", "-f", "-", stdin=pod("third", privileged=True))
    enforced = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}"
    assert await admin.sees("local", "get", "namespace", "strict", "-o", enforced) == "restricted"
    assert await admin.sees("local", "get", "namespace", "kube-system", "-o", enforced) == ""

    # A namespace that comes later is in, and who lowers it is put right and seen.
    await admin.sees("local", "create", "namespace", "newcomer")

    async def is_in() -> bool:
        return await admin.sees("local", "get", "namespace", "newcomer", "-o", enforced) == "baseline"

    await eventually(is_in, 20)
    assert (await cluster_of(admin, "podsecuritytemplates", "base"))["state"] == "Applied"
    await admin.sees(
        "local", "label", "--overwrite", "namespace", "newcomer", "pod-security.kubernetes.io/enforce=privileged"
    )
    await eventually(is_in, 20)
    drifted = await is_state(admin, "podsecuritytemplates", "base", "Drifted")
    assert "newcomer" in drifted["message"]

    await admin.sees("herdsman", "delete", "podsecuritytemplate", "base")

    async def is_out() -> bool:
        return await admin.sees("local", "get", "namespace", "plain", "-o", enforced) == ""

    await eventually(is_out, 30)
    assert await admin.sees("local", "get", "namespace", "strict", "-o", enforced) == "restricted"


async def test_a_cluster_without_its_agent_is_pending_since_then(hub: Hub):
    admin = await hub.admin()
    await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(CLUSTER).encode())
    await admin.sees("herdsman", "apply", "-f", "-", stdin=admission("far", TEAM, clusters={"names": ["far"]}))
    pending = await is_state(admin, "admissionpolicies", "far", "Pending", generation=0)
    assert "the cluster's agent is not connected" in pending["message"]
    told = await admin.must("policy", "trial", "far")
    assert "far: not tried yet; Pending since" in told
    for kind, name in (("admissionpolicy", "far"), ("cluster", "far")):
        await admin.sees("herdsman", "delete", kind, name)


async def test_a_guarded_project_is_not_opened_by_a_label_or_another_network_policy(hub: Hub):
    admin = await hub.admin()
    await admin.sees("local", "create", "namespace", "walled")
    await admin.must("project", "create", "walls", "local/walled")
    spec = json.dumps({"spec": {"isolated": True, "defaultDeny": True, "guarded": True}})
    await admin.sees("herdsman", "patch", "project", "walls", "--type=merge", "-p", spec)

    async def is_guarded() -> bool:
        answer = await admin.kubectl(
            "local", "label", "namespace", "default", "management.herdsman.dev/project=walls", "--dry-run=server"
        )
        return answer.code != 0 and "is the hub's: use herdsman project" in answer.err

    await eventually(is_guarded, 30)
    opened = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "open", "namespace": "walled"},
        "spec": {"podSelector": {}, "ingress": [{}]},
    }  # fmt: skip
    refused = await admin.kubectl("local", "apply", "-f", "-", stdin=json.dumps(opened).encode())
    assert "the namespace's project is guarded: ingress" in refused.err
    opened["spec"] = {
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}],
    }
    refused = await admin.kubectl("local", "apply", "-f", "-", stdin=json.dumps(opened).encode())
    assert "the namespace's project is guarded: egress" in refused.err
    opened["spec"] = {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}
    await admin.sees("local", "apply", "-f", "-", stdin=json.dumps(opened).encode())
    await admin.sees("local", "label", "namespace", "walled", "team=x")
    ours = json.loads(
        await admin.sees("local", "get", "networkpolicy", "herdsman-project", "-n", "walled", "-o", "json")
    )
    assert ours["spec"]["policyTypes"] == ["Ingress", "Egress"]
    await admin.must("project", "delete", "walls", "--yes")

    async def is_released() -> bool:
        found = await admin.sees("local", "get", "validatingadmissionpolicies", "-o", "name")
        labels = await admin.sees("local", "get", "namespace", "walled", "-o", "jsonpath={.metadata.labels}")
        return "herdsman-projects" not in found and "management.herdsman.dev/project" not in labels

    await eventually(is_released, 30)
