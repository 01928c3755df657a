"""The management API of a whole hub, by every kubectl that can be had: what `integration.kubectl` does to the gateway alone, and more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from integration.flows.test_bad_input import API, send
from integration.harness.hub import Hub, eventually
from integration.harness.kubectls import fetch_debian_kubectl, find_kubectls
from integration.kubectl.run import Kubectl
from integration.kubectl.tests.commands import KubectlCommands, render_made
from libs.common import errors

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def tokens(bare_hub: Hub) -> AsyncIterator[dict[str, str]]:
    """The people of the seed by name, each with a token for kubectl, and the clusters."""
    admin = await bare_hub.admin()
    await admin.sees("herdsman", "apply", "-f", "-", stdin=render_made("Cluster", "c1", "c2").encode())
    made = {}
    for name in ("root", "ann", "bob"):
        person = await bare_hub.person(name)
        made[name] = (await person.must("token", "create", "--description", "kubectl", "--ttl", "1h")).strip()
    for role in ("admin", "cluster-owner"):
        await admin.must("grant", "--user", "root", "--role", role, "--global")
    await admin.must("grant", "--user", "ann", "--role", "cluster-owner", "--cluster", "c1")
    yield made
    await admin.sees("herdsman", "delete", "clusters", "-l", "made=test")
    await admin.sees("herdsman", "delete", "users", "root", "ann", "bob")
    for name in made:
        bare_hub.people.pop(name)


@pytest_asyncio.fixture(
    params=[*find_kubectls(), "debian"], loop_scope="package",
    ids=lambda path: "-".join(str(path).split("/")[-3:]),
)  # fmt: skip
async def kubectl(request, bare_hub, tokens, tmp_path):
    try:
        binary = await fetch_debian_kubectl() if request.param == "debian" else request.param
    except errors.NotFound as exc:
        pytest.skip(exc.message)
    home = tmp_path / "home"
    home.mkdir()
    made = Kubectl(binary, bare_hub.url, home, bare_hub.ca_file, token=tokens.__getitem__)
    await made.find_minor()
    yield made
    await made.ok("delete", "user", "eve", "--ignore-not-found")
    await made.ok("delete", "users,projects", "-l", "made=test")


class TestWholeHub(KubectlCommands):
    async def test_wait_for_a_condition(self, kubectl):
        result = await kubectl.run("wait", "cluster/c1", "--for=condition=Ready=false", "--timeout=20s")
        assert (result.code, "condition met" in result.out) == (0, True), result

    async def test_status_is_a_subresource(self, kubectl):
        """The hub alone writes it: the agent's public key lies there."""
        if kubectl.minor >= 27:
            patch = '{"status":{"agent":{"publicKey":"UMINE"}}}'
            said = await kubectl.fails("patch", "cluster", "c2", "--subresource=status", "--type=merge", "-p", patch)
            assert "by the hub alone" in said
            await kubectl.ok("patch", "cluster", "c2", "--type=merge", "-p", patch)
            assert "UMINE" not in await kubectl.ok("get", "cluster", "c2", "-o", "json")

    """On NATS, behind the front door, with the owners' own strategies and reconcilers."""

    async def test_a_right_is_given_and_taken_with_kubectl_alone(self, kubectl):
        binding = render_made(
            "RoleTemplateBinding", "bob-sees-c2", spec="{user: bob, role: cluster-viewer, scope: {cluster: c2}}"
        )
        await kubectl.ok("apply", "-f", "-", stdin=binding)
        assert await kubectl.ok("get", "clusters", "-o", "name", by="bob") == "cluster.management.herdsman.dev/c2\n"
        assert "Forbidden" in await kubectl.fails("delete", "cluster", "c2", by="bob")
        await kubectl.ok("delete", "rtb", "bob-sees-c2")
        assert await kubectl.ok("get", "clusters", "-o", "name", by="bob") == ""

    async def test_nobody_gives_more_than_they_hold(self, kubectl):
        for spec in (
            "{user: ann, role: admin, scope: {global: true}}",
            "{user: ann, role: cluster-owner, scope: {cluster: c2}}",
        ):
            more = render_made("RoleTemplateBinding", "more", spec=spec)
            assert "orbidden" in await kubectl.fails("create", "-f", "-", by="ann", stdin=more)


async def test_an_api_token_does_what_it_is_for_and_sign_out_says_that_it_worked(bare_hub, tokens):
    root = bare_hub.people["root"]
    reading = (await root.must("token", "create", "--read-only", "--ttl", "1h")).strip()
    assert (await send(bare_hub, "GET", f"{API}/users", Authorization=f"Bearer {reading}"))[0] == 200
    body = b'{"apiVersion":"management.herdsman.dev/v1","kind":"Project","metadata":{"name":"no"},"spec":{}}'
    headers = {"Authorization": f"Bearer {reading}", "Content_Type": "application/json"}
    assert (await send(bare_hub, "POST", f"{API}/projects", body, **headers))[0] == 403
    for _ in range(5):
        token = (await root.must("token", "create", "--ttl", "1h")).strip()
        assert (await send(bare_hub, "POST", "/v1/logout", Authorization=f"Bearer {token}"))[0] == 200

        async def is_refused(token: str = token) -> bool:
            return (await send(bare_hub, "GET", f"{API}/users", Authorization=f"Bearer {token}"))[0] == 401

        await eventually(is_refused, 1)


@pytest.mark.parametrize(("size", "status"), [(500_000, 201), (700_000, 413), (1_450_000, 413), (1_700_000, 413)])
async def test_a_large_object_is_kept_or_refused_by_its_size(bare_hub, tokens, size, status):
    name = f"large-{size}"
    # Long ones: a role may have 10,000 rights.
    names = [f"{number:06}" + "n" * 194 for number in range(size // 203)]
    rules = [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": names}]
    document = {
        "apiVersion": "management.herdsman.dev/v1", "kind": "RoleTemplate", "metadata": {"name": name},
        "spec": {"scope": "cluster", "rules": rules},
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {tokens['root']}", "Content_Type": "application/json"}
    body = json.dumps(document, separators=(",", ":")).encode()
    got, answer = await send(bare_hub, "POST", f"{API}/roletemplates", body, **headers)
    assert got == status, str(answer)[:500]
    if status == 413:
        assert answer["reason"] == "RequestEntityTooLarge"
        assert "too large" in answer["message"]
    else:
        assert (await send(bare_hub, "DELETE", f"{API}/roletemplates/{name}", **headers))[0] == 200


async def test_a_watch_goes_on_over_a_killed_gateway_without_a_gap(bare_hub, tokens):
    admin = await bare_hub.admin()
    await admin.sees("herdsman", "apply", "-f", "-", stdin=render_made("Project", "stays", "changes", "goes").encode())
    said = ("--for=condition=Applied", "--timeout=30s")  # after that the hub itself writes nothing about them
    await admin.sees("herdsman", "wait", "project/stays", "project/changes", "project/goes", *said)
    _, listed = await send(bare_hub, "GET", f"{API}/projects", Authorization=f"Bearer {tokens['root']}")
    assert {i["metadata"]["name"] for i in listed["items"]} >= {"stays", "changes", "goes"}
    version = listed["metadata"]["resourceVersion"]
    await admin.sees("herdsman", "label", "project", "changes", "seen=later")
    await admin.sees("herdsman", "delete", "project", "goes")
    bare_hub.kill("gateway")

    async def is_back() -> bool:
        return (await bare_hub.get("/readyz"))[0] == 200

    await eventually(is_back, 30)
    await admin.sees("herdsman", "apply", "-f", "-", stdin=render_made("Project", "new").encode())
    path = f"{API}/projects?watch=1&resourceVersion={version}&timeoutSeconds=3"
    status, body = await bare_hub.get(path, tokens["root"])
    assert status == 200
    events = [json.loads(line) for line in body.splitlines() if line.startswith(b"{")]
    # The first of each: the hub itself says something of a project that is new.
    seen = {e["object"]["metadata"].get("name", e["object"].get("message")): e for e in reversed(events)}
    assert {name: e["type"] for name, e in seen.items()} == {"changes": "ADDED", "goes": "DELETED", "new": "ADDED"}
    assert seen["changes"]["object"]["metadata"]["labels"]["seen"] == "later"
    named = f"{path}&fieldSelector=metadata.name%3Dstays"
    assert [line for line in (await bare_hub.get(named, tokens["root"]))[1].splitlines() if line.startswith(b"{")] == []
    await admin.sees("herdsman", "delete", "projects", "-l", "made=test")


async def test_kubectl_waits_over_a_killed_gateway(bare_hub, tokens):
    admin = await bare_hub.admin()
    await admin.sees("herdsman", "apply", "-f", "-", stdin=render_made("Project", "awaited").encode())
    waiting = asyncio.create_task(
        admin.kubectl("herdsman", "wait", "project/awaited", "--for=delete", "--timeout=40s", timeout_s=50), name="wait"
    )
    await asyncio.sleep(1.5)
    assert not waiting.done()
    bare_hub.kill("gateway")

    async def is_deleted() -> bool:
        return (await admin.kubectl("herdsman", "delete", "project", "awaited", "--wait=false")).code == 0

    await eventually(is_deleted, 30)
    answer = await waiting
    assert answer.code == 0, answer.err
