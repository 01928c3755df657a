"""What a project says, in a real cluster: a namespace that is asked for is there with rights and quota when the answer comes."""

from __future__ import annotations

import json
import time

import pytest

from integration.harness.hub import Hub, eventually

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(240)]


async def test_a_namespace_that_is_asked_for_is_there_with_rights_and_quota_when_the_answer_comes(hub: Hub):
    admin, rita = await hub.admin(), await hub.person("rita")
    await admin.sees("local", "create", "namespace", "real-a")
    await admin.must("project", "create", "real", "local/real-a")
    await admin.must("project", "quota", "real", "configmaps=12")
    await admin.must("grant", "--user", "rita", "--role", "project-owner", "--project", "real")
    await rita.fetch_kubeconfig()
    took = []
    for name in ("real-1", "real-2", "real-3"):
        began = time.monotonic()
        answer = await rita.herdsman("project", "add", "real", f"local/{name}", "--create")
        took.append(time.monotonic() - began)
        assert answer.err == f"local/{name}: made\n"
        await rita.sees("local", "create", "configmap", "mine", "-n", name, "--from-literal=a=b")
    print(f"made in {', '.join(f'{seconds:.2f}' for seconds in took)} s, with the start of the command")

    # Three for each of four: the cluster's own, ours, and one more.
    await rita.sees("local", "create", "configmap", "more", "-n", "real-1", "--from-literal=a=b")
    refused = await rita.kubectl("local", "create", "configmap", "toomany", "-n", "real-1", "--from-literal=a=b")
    assert "exceeded quota" in refused.err

    async def is_told() -> bool:
        document = json.loads(await rita.must("project", "show", "real", "-o", "json"))
        status = document.get("status") or {}
        used = {n["namespace"]: n.get("used", {}).get("configmaps") for n in status.get("namespaces", ())}
        states = [c["state"] for c in status.get("clusters", ())]
        return used.get("real-1") == "3" and used.get("real-2") == "2" and states == ["Applied"]

    await eventually(is_told, 40)
    refused = await admin.herdsman("project", "quota", "real", "--namespace", "local/real-1", "configmaps=2")
    assert 'Invalid value: "2": 3 is used' in refused.err

    # Moved, its old members are out and its quota is that of the new project.
    await admin.must("project", "create", "else")
    await admin.must("project", "move", "local/real-1", "--to", "else")

    async def is_out() -> bool:
        return (await rita.kubectl("local", "get", "configmaps", "-n", "real-1")).code != 0

    await eventually(is_out, 5)

    async def has_no_quota() -> bool:
        return "herdsman-project" not in await admin.sees("local", "get", "resourcequota", "-n", "real-1", "-o", "name")

    await eventually(has_no_quota, 10)
    assert "mine" in await admin.sees("local", "get", "configmaps", "-n", "real-1", "-o", "name")


TEMPLATE = {
    "apiVersion": "management.herdsman.dev/v1",
    "kind": "ProjectTemplate",
    "metadata": {"name": "sandbox"},
    "spec": {
        "clusters": ["local"],
        "quota": {"configmaps": "2"},
        "maxPerPerson": 1,
        "description": "a place to try things",
    },
}
ROLE = {
    "apiVersion": "management.herdsman.dev/v1",
    "kind": "RoleTemplate",
    "metadata": {"name": "sandbox-user"},
    "spec": {
        "scope": "global",
        "hubRules": [
            {
                "apiGroups": ["management.herdsman.dev"],
                "resources": ["projecttemplates/projects"],
                "resourceNames": ["sandbox"],
                "verbs": ["create"],
            },
            {"apiGroups": ["management.herdsman.dev"], "resources": ["projecttemplates"], "verbs": ["get", "list"]},
        ],
    },
}


async def test_somebody_makes_a_project_of_their_own_from_a_template_and_works_in_it(hub: Hub):
    admin, tess = await hub.admin(), await hub.person("tess")
    for document in (TEMPLATE, ROLE):
        await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(document).encode())
    refused = await tess.herdsman("project", "create", "tess-box", "--template", "sandbox")
    assert refused.code == 4
    await admin.must("grant", "--user", "tess", "--role", "sandbox-user", "--global")
    assert "sandbox" in await tess.must("project", "templates")
    answer = await tess.herdsman("project", "create", "tess-box", "--template", "sandbox")
    assert answer.err == 'project "tess-box" created, with local/tess-box\n'

    async def works() -> bool:
        await tess.fetch_kubeconfig()
        made = await tess.kubectl("local", "create", "configmap", "mine", "-n", "tess-box", "--from-literal=a=b")
        return made.code == 0

    await eventually(works, 60)
    refused = await tess.kubectl("local", "create", "configmap", "more", "-n", "tess-box", "--from-literal=a=b")
    assert "exceeded quota" in refused.err
    refused = await tess.herdsman("project", "quota", "tess-box", "configmaps=99")
    assert "the right to update projects/policies is missing" in refused.err
    refused = await tess.herdsman("project", "create", "tess-two", "--template", "sandbox")
    assert 'you have 1 projects of template "sandbox" already' in refused.err
