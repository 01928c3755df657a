"""What people do with kubectl, done by the real one, of every version at hand."""

from __future__ import annotations

import asyncio
import json
import re

import yaml

from tests.apiserver.support import make_cluster, make_user

USER = "apiVersion: management.herdsman.dev/v1\nkind: User\nmetadata:\n  name: eve\nspec:\n  displayName: Eve\n"


async def test_get_in_every_output_form(kubectl):
    assert "NAME" in await kubectl.ok("get", "users")
    lines = (await kubectl.ok("get", "users", "-o", "wide")).splitlines()
    assert lines[0].split() == ["NAME", "DISPLAY", "NAME", "ENABLED", "LAST", "LOGIN", "PRINCIPAL", "AGE"]
    assert (await kubectl.ok("get", "users", "-o", "name")).split() == [
        f"user.management.herdsman.dev/{n}" for n in ("ann", "bob", "root")
    ]
    assert yaml.safe_load(await kubectl.ok("get", "user", "bob", "-o", "yaml"))["metadata"]["name"] == "bob"
    assert len(json.loads(await kubectl.ok("get", "users", "-o", "json"))["items"]) == 3
    assert "c1" in await kubectl.ok("get", "clusters,projects,rt")
    assert (await kubectl.ok("get", "users", "--no-headers", "-o", "custom-columns=N:.metadata.name")).split() == [
        "ann",
        "bob",
        "root",
    ]
    assert 'users.management.herdsman.dev "nobody" not found' in await kubectl.fails("get", "user", "nobody")


async def test_lists_are_filtered_by_who_asks(kubectl):
    assert (await kubectl.ok("get", "clusters", "-o", "name", by="ann")).split() == [
        "cluster.management.herdsman.dev/c1"
    ]
    assert "Forbidden" in await kubectl.fails("get", "nodes.management.herdsman.dev", by="bob")
    assert "NotFound" in await kubectl.fails("get", "cluster", "c2", by="ann")
    assert "Forbidden" in await kubectl.fails("create", "-f", "-", by="bob", stdin=USER)


async def test_selectors_and_chunks(kubectl, hub):
    for number in range(12):
        user = make_user(f"m{number:02}", enabled=number % 2 == 0)
        user.metadata.labels = {"team": "odd" if number % 2 else "even"}
        await hub.put(user)
    assert len((await kubectl.ok("get", "users", "--chunk-size=5", "-o", "name")).split()) == 15
    assert len((await kubectl.ok("get", "users", "--chunk-size=4", "--no-headers")).splitlines()) == 15
    assert len((await kubectl.ok("get", "users", "-l", "team in (odd),!x", "-o", "name")).split()) == 6
    assert len((await kubectl.ok("get", "users", "--field-selector", "spec.enabled=false", "-o", "name")).split()) == 6
    assert "field label not supported" in await kubectl.fails("get", "users", "--field-selector", "spec.nope=1")


async def test_create_apply_patch_label_replace_delete(kubectl):
    assert "created" in await kubectl.ok("apply", "-f", "-", stdin=USER)
    assert "unchanged" in await kubectl.ok("apply", "-f", "-", stdin=USER)
    assert "configured" in await kubectl.ok("apply", "-f", "-", stdin=USER.replace("Eve", "Eve II"))
    assert (
        await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName} {.metadata.generation}")
        == "Eve II 2"
    )
    await kubectl.ok("apply", "-f", "-", stdin=USER.replace("  displayName: Eve\n", "  enabled: false\n"))
    assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec}") == '{"displayName":"","enabled":false}'
    await kubectl.ok("patch", "user", "eve", "--type", "merge", "-p", '{"spec":{"displayName":"P"}}')
    await kubectl.ok(
        "patch", "user", "eve", "--type", "json", "-p", '[{"op":"replace","path":"/spec/enabled","value":true}]'
    )
    await kubectl.ok("label", "user", "eve", "team=x")
    await kubectl.ok("annotate", "user", "eve", "note=hello world")
    assert (
        await kubectl.ok("get", "users", "-l", "team=x", "-o", "jsonpath={.items[*].spec}")
        == '{"displayName":"P","enabled":true}'
    )
    text = await kubectl.ok("get", "user", "eve", "-o", "yaml")
    assert "replaced" in await kubectl.ok("replace", "-f", "-", stdin=text.replace("displayName: P", "displayName: R"))
    assert "the object has been modified" in await kubectl.fails("replace", "-f", "-", stdin=text)
    assert "deleted" in await kubectl.ok("delete", "user", "eve")
    assert "NotFound" in await kubectl.fails("get", "user", "eve")
    assert "AlreadyExists" in await kubectl.fails("create", "-f", "-", stdin=USER.replace("eve", "bob"))


async def test_delete_by_selector_and_with_finalizers(kubectl, hub, eventually):
    for name in ("x1", "x2"):
        user = make_user(name)
        user.metadata.labels = {"gone": "yes"}
        await hub.put(user)
    assert (await kubectl.ok("delete", "users", "-l", "gone=yes")).count("deleted") == 2
    cluster = make_cluster("c7")
    cluster.metadata.finalizers = ["herdsman.dev/detach"]
    await hub.put(cluster)
    deleting = asyncio.create_task(kubectl.run("delete", "cluster", "c7"))
    await eventually(
        lambda: b"deletionTimestamp" in hub.informers["clusters"].entries["clusters.c7"].value, timeout_s=20
    )
    assert not deleting.done()
    await kubectl.ok("patch", "cluster", "c7", "--type", "merge", "-p", '{"metadata":{"finalizers":null}}')
    assert (await deleting).code == 0


async def test_dry_run_and_diff_write_nothing(kubectl):
    said = await kubectl.ok("apply", "--dry-run=server", "-f", "-", stdin=USER)
    assert "created (server dry run)" in said
    assert "NotFound" in await kubectl.fails("get", "user", "eve")
    await kubectl.ok("apply", "-f", "-", stdin=USER)
    result = await kubectl.run("diff", "-f", "-", stdin=USER.replace("Eve", "Other"))
    assert (result.code, "+  displayName: Other" in result.out) == (1, True), result
    assert (await kubectl.run("diff", "-f", "-", stdin=USER)).code == 0
    assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}") == "Eve"
    assert "deleted (server dry run)" in await kubectl.ok("delete", "user", "eve", "--dry-run=server")
    await kubectl.ok("get", "user", "eve")


async def test_unknown_and_wrong_fields_are_refused_with_their_path(kubectl):
    said = await kubectl.fails("apply", "-f", "-", stdin=USER.replace("displayName", "displayNme"))
    assert "displayNme" in said
    said = await kubectl.fails("apply", "--validate=false", "-f", "-", stdin=USER + "  enabled: 'yes'\n")
    assert "spec.enabled" in said
    if kubectl.minor >= 27:
        said = await kubectl.fails("create", "-f", "-", stdin=USER.replace("displayName", "displayNme"))
        assert 'unknown field "spec.displayNme"' in said
        result = await kubectl.run(
            "create", "--validate=warn", "-f", "-", stdin=USER.replace("displayName", "displayNme")
        )
        assert (result.code, 'Warning: unknown field "spec.displayNme"' in result.err) == (0, True), result


async def test_server_side_apply_and_its_conflicts(kubectl):
    await kubectl.ok("apply", "--server-side", "--field-manager=a", "-f", "-", stdin=USER)
    said = await kubectl.fails(
        "apply", "--server-side", "--field-manager=b", "-f", "-", stdin=USER.replace("Eve", "Other")
    )
    assert 'conflict with "a"' in said
    assert ".spec.displayName" in said
    await kubectl.ok(
        "apply",
        "--server-side",
        "--field-manager=b",
        "--force-conflicts",
        "-f",
        "-",
        stdin=USER.replace("Eve", "Other"),
    )
    assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}") == "Other"
    # a lets go of what it no longer holds without a conflict; b removes what it alone holds.
    await kubectl.ok(
        "apply", "--server-side", "--field-manager=a", "-f", "-", stdin=USER.replace("spec:\n  displayName: Eve\n", "")
    )
    await kubectl.ok(
        "apply", "--server-side", "--field-manager=b", "-f", "-", stdin=USER.replace("spec:\n  displayName: Eve\n", "")
    )
    assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}") == ""


async def test_from_client_side_to_server_side_apply(kubectl):
    await kubectl.ok("apply", "-f", "-", stdin=USER)
    extra = [] if kubectl.minor >= 26 else ["--force-conflicts"]
    await kubectl.ok("apply", "--server-side", *extra, "-f", "-", stdin=USER.replace("Eve", "Server"))
    assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}") == "Server"
    await kubectl.ok("apply", "--server-side", "-f", "-", stdin=USER.replace("Eve", "Again"))


async def test_edit(kubectl):
    await kubectl.ok("apply", "-f", "-", stdin=USER)
    editor = kubectl.home / "editor.sh"
    editor.write_text("#!/bin/sh\nsed -i 's/displayName: Eve/displayName: Edited/' \"$1\"\n")
    editor.chmod(0o755)
    kubectl.environment["EDITOR"] = str(editor)
    assert "edited" in await kubectl.ok("edit", "user", "eve")
    assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}") == "Edited"


async def test_watch_and_wait(kubectl, hub):
    process = await kubectl.start("get", "users", "-w")
    assert process.stdout is not None
    lines = [(await asyncio.wait_for(process.stdout.readline(), 20)).decode() for _ in range(4)]
    assert lines[0].startswith("NAME")
    await kubectl.ok("apply", "-f", "-", stdin=USER)
    line = (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
    assert line.split()[:3] == ["eve", "Eve", "true"]
    process.terminate()
    await process.communicate()

    waiting = asyncio.create_task(kubectl.run("wait", "cluster/c1", "--for=condition=Ready", "--timeout=20s"))
    await asyncio.sleep(1)
    cluster = make_cluster("c1")
    cluster.status.set_condition("Ready", True, "Tested", "", hub.now())
    await hub.put(cluster)
    result = await waiting
    assert (result.code, "condition met" in result.out) == (0, True), result
    deleting = asyncio.create_task(kubectl.run("wait", "user/eve", "--for=delete", "--timeout=20s"))
    await asyncio.sleep(1)
    await kubectl.ok("delete", "user", "eve")
    assert (await deleting).code == 0


async def test_explain_and_api_resources(kubectl):
    said = await kubectl.ok("explain", "user.spec")
    assert "displayName" in said
    assert "The name that people see" in said
    assert "Can't change" in await kubectl.ok("explain", "rtb.metadata.name")
    assert "notAfter" in await kubectl.ok("explain", "roletemplatebindings", "--recursive")
    said = await kubectl.ok("api-resources", "--api-group=management.herdsman.dev", "-o", "name")
    assert {"users.management.herdsman.dev", "kubeconfigs.management.herdsman.dev"} <= set(said.split())
    assert "management.herdsman.dev/v1" in await kubectl.ok("api-versions")
    assert "Server Version" in await kubectl.ok("version")


async def test_describe(kubectl):
    said = await kubectl.ok("describe", "user", "bob")
    assert "Name:         bob" in said
    assert re.search(r"^Events: +<none>$", said, re.MULTILINE)


async def test_can_i_and_whoami(kubectl):
    assert (await kubectl.ok("auth", "can-i", "create", "users")).strip() == "yes"
    result = await kubectl.run("auth", "can-i", "create", "users", by="bob")
    assert (result.code, result.out.strip().split()[0]) == (1, "no")
    assert (await kubectl.ok("auth", "can-i", "update", "cluster/c1", by="ann")).strip() == "yes"
    assert (await kubectl.run("auth", "can-i", "update", "cluster/c2", by="ann")).code == 1
    assert "kubeconfigs.management.herdsman.dev" in await kubectl.ok("auth", "can-i", "--list", by="bob")
    if kubectl.minor >= 27:
        assert "root" in await kubectl.ok("auth", "whoami")


async def test_namespaces_and_events_are_empty(kubectl):
    assert (await kubectl.run("get", "namespaces")).out == ""
    assert (await kubectl.run("get", "events")).out == ""
    await kubectl.fails("create", "namespace", "x")


async def test_status_is_a_subresource(kubectl):
    if kubectl.minor >= 27:
        await kubectl.ok(
            "patch",
            "user",
            "bob",
            "--subresource=status",
            "--type=merge",
            "-p",
            '{"status":{"mustChangePassword":true},"spec":{"displayName":"no"}}',
        )
        assert (
            await kubectl.ok("get", "user", "bob", "-o", "jsonpath={.status.mustChangePassword}{.spec.displayName}")
            == "true"
        )
