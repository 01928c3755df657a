"""`herdsman project` against a whole hub with a real cluster: what the guide says, command by command."""

from __future__ import annotations

import json

import pytest

from integration.harness.hub import Hub, eventually

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(240)]
DENIED, NOT_FOUND = 4, 3


async def stored(hub: Hub, name: str) -> dict:
    admin = await hub.admin()
    return json.loads(await admin.must("project", "show", name, "-o", "json"))


async def shares(hub: Hub, name: str) -> dict[str, dict[str, str]]:
    return {e["namespace"]: e.get("share", {}) for e in (await stored(hub, name))["spec"]["namespaces"]}


async def test_projects_from_the_first_to_the_last_command(hub: Hub):
    admin, paul = await hub.admin(), await hub.person("paul")
    for name in ("team-a", "team-b", "team-c"):
        await admin.sees("local", "create", "namespace", name)
    await admin.must("project", "create", "team", "local/team-a", "local/team-b", "--description", "one of the guide")
    await admin.must("project", "create", "lab")
    await admin.must("grant", "--user", "paul", "--role", "project-owner", "--project", "team")
    await admin.must("grant", "--user", "paul", "--role", "project-owner", "--project", "lab")

    # Quota: equal parts, a share of one's own, and what does not fit.
    shown = await admin.must("project", "quota", "team", "pods=10", "limits.memory=4Gi")
    assert shown.splitlines()[0].split() == ["NAMESPACE", "LIMITS.MEMORY", "PODS"]
    assert await shares(hub, "team") == {name: {"pods": "5", "limits.memory": "2Gi"} for name in ("team-a", "team-b")}
    await paul.must("project", "quota", "team", "--namespace", "local/team-b", "pods=7")
    assert {name: share["pods"] for name, share in (await shares(hub, "team")).items()} == {
        "team-a": "3",
        "team-b": "7",
    }
    refused = await paul.herdsman("project", "quota", "team", "--namespace", "local/team-b", "pods=10")
    assert refused.code == 1
    assert "spec.namespaces[0].share[pods]" in refused.err
    assert "nothing of the quota of 10 is left" in refused.err
    refused = await paul.herdsman("project", "quota", "team", "pods=1000")
    assert refused.code == DENIED
    assert "the right to update projects/policies is missing" in refused.err

    # Who owns the project brings nothing in that is there, and has new ones made.
    refused = await paul.herdsman("project", "add", "team", "local/team-c")
    assert refused.code == DENIED
    assert "the right to update cluster local is missing" in refused.err
    refused = await paul.herdsman("project", "add", "team", "local/team-c", "--create")
    assert 'namespaces "team-c" already exists' in refused.err
    await paul.must("project", "add", "team", "local/team-new", "--create")
    entries = (await stored(hub, "team"))["spec"]["namespaces"]
    assert [(e["namespace"], e["create"]) for e in entries][-1] == ("team-new", True)
    refused = await admin.herdsman("project", "add", "team", "local/kube-public")
    assert "belongs to the cluster itself" in refused.err
    more = "management.herdsman.dev/system-namespaces=team-c*, vault"
    await admin.sees("herdsman", "annotate", "cluster", "local", more)
    refused = await admin.herdsman("project", "add", "team", "local/team-c")
    assert "belongs to the cluster itself" in refused.err
    await admin.sees("herdsman", "annotate", "cluster", "local", more.partition("=")[0] + "-")

    # Defaults for containers, which a quota of memory needs; and a limit that ends.
    limits = {"defaultRequest": {"memory": "64Mi"}, "default": {"memory": "256Mi"}, "max": {"memory": "2Gi"}}
    wrong = json.dumps({"spec": {"containerLimits": {**limits, "max": {"memory": "128Mi"}}}})
    refused = await admin.kubectl("herdsman", "patch", "project", "team", "--type", "merge", "-p", wrong)
    assert "spec.containerLimits.default[memory]" in refused.err
    right = json.dumps({"spec": {"containerLimits": limits}})
    await admin.sees("herdsman", "patch", "project", "team", "--type", "merge", "-p", right)
    await admin.must("project", "quota", "team", "--namespace", "local/team-a", "limits.memory=1Gi")
    assert "LIMITS.MEMORY" not in await admin.must("project", "quota", "team", "limits.memory=")
    await admin.must("group", "create", "shoppers")
    assert (
        "for group shoppers (project team)"
        in (await admin.herdsman("grant", "--group", "shoppers", "--role", "project-viewer", "--project", "team")).err
    )
    assert "group shoppers" in await admin.must("project", "show", "team")

    # What the agent saw.
    async def is_seen() -> bool:
        rows = {
            line.split()[1]: line.split()[2]
            for line in (await paul.must("project", "show", "team")).splitlines()
            if line.startswith("local ") and "team-" in line
        }
        return rows.get("team-a") == "yes"

    await eventually(is_seen, 30)
    listed = (await paul.sees("herdsman", "get", "projects")).splitlines()
    assert listed[0].split() == ["NAME", "DISPLAY", "NAME", "NAMESPACES", "APPLIED", "USED", "AGE"]
    assert "pods" in next(line for line in listed if line.startswith("team "))

    # A move is one step, for who may both take out and bring in.
    refused = await paul.herdsman("project", "move", "local/team-b", "--to", "lab")
    assert refused.code == DENIED
    await admin.must("project", "move", "local/team-b", "--to", "lab", "--from", "team")
    assert (await shares(hub, "lab"), "team-b" in await shares(hub, "team")) == ({"team-b": {}}, False)
    refused = await admin.herdsman("project", "add", "team", "local/team-b")
    assert 'is in project "lab": move it from there' in refused.err

    # Out, and away: the namespaces stay.
    await admin.must("project", "remove", "lab", "local/team-b")
    assert (await admin.herdsman("project", "remove", "lab", "local/team-b")).code == NOT_FOUND
    await admin.must("project", "delete", "lab", "--yes")
    await admin.must("project", "delete", "team", "--yes")
    kept = await admin.sees("local", "get", "namespaces", "-o", "name")
    assert {f"namespace/team-{x}" for x in "abc"} <= set(kept.split())
