"""Rights: a grant counts on the next call, so does a revocation, and nothing is written downstream for either."""

from __future__ import annotations

import asyncio
import time

import pytest

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package")]


async def list_rbac(admin) -> str:
    return await admin.sees("local", "get", "clusterroles,clusterrolebindings,roles,rolebindings", "-A", "-o", "name")


async def test_a_grant_and_its_revocation_count_on_the_next_call_and_write_nothing_downstream(hub):
    admin, ada = await hub.admin(), await hub.person("ada")
    before = await list_rbac(admin)
    refused = await ada.kubectl("herdsman", "get", "clusters", "-o", "name")
    assert refused.out == ""
    await admin.must("grant", "--user", "ada", "--role", "cluster-viewer", "--cluster", "local")
    await ada.fetch_kubeconfig()
    assert "kube-system" in await ada.sees("local", "get", "namespaces")
    denied = await ada.kubectl("local", "create", "configmap", "x", "--from-literal=a=b")
    assert denied.code != 0
    assert "forbidden" in denied.err
    assert "cluster.management.herdsman.dev/local" in await ada.sees("herdsman", "get", "clusters", "-o", "name")
    await admin.must("revoke", "--user", "ada", "--role", "cluster-viewer", "--cluster", "local")
    refused = await ada.kubectl("local", "get", "namespaces")
    assert refused.code != 0
    assert "no role in" in refused.err
    assert await list_rbac(admin) == before


async def test_a_disabled_user_gets_401_and_the_open_watch_is_cut_within_a_second(hub):
    admin, bob = await hub.admin(), await hub.person("bob")
    await admin.must("grant", "--user", "bob", "--role", "cluster-viewer", "--cluster", "local")
    await bob.fetch_kubeconfig()
    watching = asyncio.create_task(bob.kubectl("local", "get", "namespaces", "-w", timeout_s=30), name="watch")
    await asyncio.sleep(2)
    assert not watching.done()
    await admin.must("user", "disable", "bob")
    disabled_at = time.monotonic()
    await watching
    assert time.monotonic() - disabled_at < 1.0
    refused = await bob.kubectl("local", "get", "namespaces")
    assert refused.code != 0
    assert "logged in" in refused.err
    again = await bob.herdsman(
        "login",
        hub.url,
        "--ca-file",
        str(hub.ca_file),
        "--user",
        "bob",
        "--password-file",
        str(hub.folder / "bob.password"),
    )
    assert again.code != 0


async def test_nobody_sees_or_takes_more_than_was_given(hub):
    eve = await hub.person("eve")
    assert await eve.sees("herdsman", "get", "users", "-o", "name") == "user.management.herdsman.dev/eve\n"
    for command in (
        ("create", "-f", "-"),
        ("delete", "user", "admin"),
        ("delete", "cluster", "local"),
        ("patch", "roletemplate", "admin", "--type=merge", "-p", '{"spec":{"description":"mine"}}'),
    ):
        body = (
            b'{"apiVersion":"management.herdsman.dev/v1","kind":"RoleTemplateBinding","metadata":{"name":"mine"},'
            b'"spec":{"user":"eve","role":"admin","scope":{"global":true}}}'
        )
        answer = await eve.kubectl("herdsman", *command, stdin=body)
        assert answer.code != 0, command
        assert "Forbidden" in answer.err or "NotFound" in answer.err, answer.err
    as_other = await eve.kubectl("local", "--as", "system:admin", "get", "secrets", "-A")
    assert as_other.code != 0


async def test_a_user_made_again_under_the_same_name_inherits_nothing(hub):
    admin = await hub.admin()
    carl = await hub.person("carl")
    await admin.must("grant", "--user", "carl", "--role", "cluster-viewer", "--cluster", "local")
    await admin.must("user", "delete", "carl", "--yes")
    assert (await carl.kubectl("herdsman", "get", "clusters")).code != 0
    hub.people.pop("carl")
    again = await hub.person("carl")
    assert await again.sees("herdsman", "get", "clusters", "-o", "name") == ""


async def test_a_role_for_an_hour_is_a_binding_that_expires(hub):
    admin, dora = await hub.admin(), await hub.person("dora")
    await admin.must("grant", "--user", "dora", "--role", "cluster-viewer", "--cluster", "local", "--for", "3s")
    await dora.fetch_kubeconfig()
    assert (await dora.kubectl("local", "get", "namespaces")).code == 0
    await asyncio.sleep(3.2)
    assert (await dora.kubectl("local", "get", "namespaces")).code != 0


async def test_a_role_by_labels_begins_and_ends_with_the_label_and_its_watch_is_cut(hub):
    admin, lena = await hub.admin(), await hub.person("lena")
    before = await list_rbac(admin)
    await admin.must("grant", "--user", "lena", "--role", "cluster-viewer", "--cluster-selector", "tier in (lab,test)")
    assert "clusters/tier in (lab,test)" in await admin.sees("herdsman", "get", "roletemplatebindings")
    await lena.fetch_kubeconfig()
    assert await lena.sees("herdsman", "get", "clusters", "-o", "name") == ""
    await admin.sees("herdsman", "label", "cluster", "local", "tier=lab")
    await lena.fetch_kubeconfig()
    assert "kube-system" in await lena.sees("local", "get", "namespaces")
    watching = asyncio.create_task(lena.kubectl("local", "get", "namespaces", "-w", timeout_s=30), name="watch")
    await asyncio.sleep(2)
    assert not watching.done()
    await admin.sees("herdsman", "label", "cluster", "local", "tier-")
    relabelled_at = time.monotonic()
    await watching
    assert time.monotonic() - relabelled_at < 1.0
    refused = await lena.kubectl("local", "get", "namespaces")
    assert refused.code != 0
    assert "no role in" in refused.err
    assert await list_rbac(admin) == before
    await admin.must(
        "revoke", "--user", "lena", "--role", "cluster-viewer", "--cluster-selector", "tier in (test, lab)"
    )
