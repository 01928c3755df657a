"""The exec plug-in: the real kubectl gets its tokens from `herdsman credential`, and never from the kubeconfig."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from integration.harness.hub import Hub, Person

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory) -> AsyncIterator[Hub]:
    async with Hub(tmp_path_factory.mktemp("exec"), "--no-local-cluster") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def admin(hub) -> Person:
    """The administrator with a fresh sign-in, a kubeconfig with the plug-in, and nothing kept."""
    person = Person(hub, (await hub.admin()).name, hub.folder / "people" / "plugin")
    shutil.rmtree(person.folder)
    person.folder.mkdir()
    await person.sign_in(hub.record()["admin_password_file"])
    await person.must("kubeconfig", "--output", str(person.kubeconfig))
    return person


async def exec_tokens(admin: Person) -> list[str]:
    listed = json.loads(await admin.must("kubeconfig", "list", "-o", "json"))["items"]
    return [t["metadata"]["name"] for t in listed if t["spec"]["purpose"] == "exec"]


async def test_concurrent_kubectls_work_with_one_token_that_is_not_in_the_file(admin):
    before = len(await exec_tokens(admin))
    await asyncio.gather(*(admin.sees("herdsman", "get", "users") for _ in range(4)))
    assert len(await exec_tokens(admin)) == before + 1
    text = admin.kubeconfig.read_text()
    assert "hm_" not in text
    assert "client.authentication.k8s.io/v1" in text


async def test_the_credential_is_short_lived_and_belongs_to_the_sign_in(admin):
    printed = json.loads(await admin.must("credential", "--hub", admin.hub.url))
    name = printed["status"]["token"].split("_")[1]
    token = json.loads(await admin.sees("herdsman", "get", "token", name, "-o", "json"))
    login = json.loads((admin.folder / "config.json").read_text())["servers"]
    assert token["spec"]["purpose"] == "exec"
    assert token["spec"]["parent"] in {server["token"].split("_")[1] for server in login.values()}


async def test_a_kubeconfig_token_is_revoked_by_name_and_a_login_is_not(admin):
    static = admin.folder / "static"
    await admin.must("kubeconfig", "--static", "--read-only", "--ttl", "1h", "--output", str(static))
    name = static.read_text().split("token: hm_")[1].split("_")[0]
    assert name in await admin.must("kubeconfig", "list")
    await admin.must("kubeconfig", "revoke", name)
    assert name not in await admin.must("kubeconfig", "list")
    login = json.loads(await admin.must("token", "list", "-o", "json"))["items"]
    refused = await admin.herdsman(
        "kubeconfig", "revoke", next(t["metadata"]["name"] for t in login if t["spec"]["purpose"] == "login")
    )
    assert "is no kubeconfig's" in refused.err


async def test_signed_out_kubectl_says_what_to_run(admin):
    await admin.sees("herdsman", "get", "users")
    await admin.must("logout")
    assert not list((admin.folder / "state").rglob("*.json"))
    answer = await admin.kubectl("herdsman", "get", "users")
    assert answer.code != 0
    assert f"run: herdsman login {admin.hub.url}" in answer.err


async def test_a_sign_in_that_was_revoked_elsewhere_is_told_as_such(admin):
    settings = json.loads((admin.folder / "config.json").read_text())
    (server,) = settings["servers"].values()
    await admin.must("token", "revoke", server["token"].split("_")[1])
    answer = await admin.herdsman("credential", "--hub", admin.hub.url)
    assert answer.code == 4
    assert f"has ended: run: herdsman login {admin.hub.url}" in answer.err


async def test_while_the_hub_is_down_the_kept_token_is_still_given_out(admin):
    first = await admin.must("credential", "--hub", admin.hub.url)
    url = admin.hub.url
    await admin.hub.stop()
    try:
        assert await admin.must("credential", "--hub", url) == first
        answer = await admin.herdsman("credential", "--hub", url, "--cluster", "none")
        assert "cannot connect" in answer.err
    finally:
        await admin.hub.start()
