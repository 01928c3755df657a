"""What people do with kubectl, done by the real one: one body of tests for any hub with the people of `SEED`.

`test_kubectl` runs it on the gateway alone, `integration.flows.test_management` on a whole hub. A test finds and leaves no user
`eve` and nothing labelled `made=test`; others may exist beside those of the seed.
"""

from __future__ import annotations

import asyncio
import json
import re

import yaml

USER = "apiVersion: management.herdsman.dev/v1\nkind: User\nmetadata:\n  name: eve\nspec:\n  displayName: Eve\n"
SEED = "clusters c1 and c2; users root (may everything), ann (owns c1) and bob (has no role)"
KINDS = "clusters,users,roletemplates,roletemplatebindings,nodes"


def render_made(kind: str, *names: str, spec: str = "{}", extra: str = "") -> str:
    """YAML of objects that are cleaned away by their label."""
    return "".join(
        f"---\napiVersion: management.herdsman.dev/v1\nkind: {kind}\nmetadata: {{name: {name}, labels: {{made: test}}{extra}}}\nspec: {spec}\n"
        for name in names
    )


class KubectlCommands:
    async def test_get_in_every_output_form(self, kubectl):
        assert "NAME" in await kubectl.ok("get", "users")
        lines = (await kubectl.ok("get", "users", "-o", "wide")).splitlines()
        assert lines[0].split() == [
            "NAME",
            "DISPLAY",
            "NAME",
            "ENABLED",
            "LAST",
            "LOGIN",
            "LAST",
            "ACTIVITY",
            "INACTIVE",
            "PRINCIPAL",
            "AGE",
        ]
        named = (await kubectl.ok("get", "users", "-o", "name")).split()
        assert {f"user.management.herdsman.dev/{n}" for n in ("ann", "bob", "root")} <= set(named)
        assert yaml.safe_load(await kubectl.ok("get", "user", "bob", "-o", "yaml"))["metadata"]["name"] == "bob"
        assert len(json.loads(await kubectl.ok("get", "users", "-o", "json"))["items"]) == len(named)
        assert "c1" in await kubectl.ok("get", "clusters,projects,rt")
        columns = await kubectl.ok("get", "users", "--no-headers", "-o", "custom-columns=N:.metadata.name")
        assert columns.split() == [name.partition("/")[2] for name in named]
        for form in ("yaml", "wide", "name", "json"):
            said = await kubectl.ok("get", KINDS, "-o", form)
            assert "cluster-owner" in said, form
            assert "c2" in said, form
        assert 'users.management.herdsman.dev "nobody" not found' in await kubectl.fails("get", "user", "nobody")

    async def test_lists_are_filtered_by_who_asks(self, kubectl):
        assert (await kubectl.ok("get", "clusters", "-o", "name", by="ann")).split() == [
            "cluster.management.herdsman.dev/c1"
        ]
        assert "Forbidden" in await kubectl.fails("get", "nodes.management.herdsman.dev", by="bob")
        assert "NotFound" in await kubectl.fails("get", "cluster", "c2", by="ann")
        assert "Forbidden" in await kubectl.fails("create", "-f", "-", by="bob", stdin=USER)

    async def test_selectors_and_chunks(self, kubectl):
        for enabled, team in (("true", "even"), ("false", "odd")):
            names = [f"m{number:02}" for number in range(12) if (number % 2 == 0) == (team == "even")]
            made = render_made("User", *names, spec=f"{{enabled: {enabled}}}").replace(
                "made: test", f"made: test, team: {team}"
            )
            await kubectl.ok("apply", "-f", "-", stdin=made)
        mine = ("get", "users", "-l", "made=test", "-o", "name")
        assert len((await kubectl.ok(*mine, "--chunk-size=5")).split()) == 12
        assert (
            len((await kubectl.ok("get", "users", "-l", "made", "--chunk-size=4", "--no-headers")).splitlines()) == 12
        )
        assert len((await kubectl.ok("get", "users", "-l", "team in (odd),!x", "-o", "name")).split()) == 6
        assert len((await kubectl.ok(*mine, "--field-selector", "spec.enabled=false")).split()) == 6
        assert "field label not supported" in await kubectl.fails("get", "users", "--field-selector", "spec.nope=1")

    async def test_create_apply_patch_label_replace_delete(self, kubectl):
        assert "created" in await kubectl.ok("apply", "-f", "-", stdin=USER)
        assert "unchanged" in await kubectl.ok("apply", "-f", "-", stdin=USER)
        assert "configured" in await kubectl.ok("apply", "-f", "-", stdin=USER.replace("Eve", "Eve II"))
        assert (
            await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName} {.metadata.generation}")
            == "Eve II 2"
        )
        await kubectl.ok("apply", "-f", "-", stdin=USER.replace("  displayName: Eve\n", "  enabled: false\n"))
        fields = await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}|{.spec.enabled}")
        assert fields == "|false"
        await kubectl.ok("patch", "user", "eve", "--type", "merge", "-p", '{"spec":{"displayName":"P"}}')
        await kubectl.ok(
            "patch", "user", "eve", "--type", "json", "-p", '[{"op":"replace","path":"/spec/enabled","value":true}]'
        )
        await kubectl.ok("label", "user", "eve", "team=x")
        await kubectl.ok("annotate", "user", "eve", "note=hello world")
        fields = await kubectl.ok(
            "get", "users", "-l", "team=x", "-o", "jsonpath={.items[*].spec.displayName}|{.items[*].spec.enabled}"
        )
        assert fields == "P|true"
        text = await kubectl.ok("get", "user", "eve", "-o", "yaml")
        assert "replaced" in await kubectl.ok(
            "replace", "-f", "-", stdin=text.replace("displayName: P", "displayName: R")
        )
        assert "the object has been modified" in await kubectl.fails("replace", "-f", "-", stdin=text)
        assert "deleted" in await kubectl.ok("delete", "user", "eve")
        assert "NotFound" in await kubectl.fails("get", "user", "eve")
        assert "AlreadyExists" in await kubectl.fails("create", "-f", "-", stdin=USER.replace("eve", "bob"))

    async def test_delete_by_selector_and_with_finalizers(self, kubectl):
        await kubectl.ok("apply", "-f", "-", stdin=render_made("User", "x1", "x2"))
        assert (await kubectl.ok("delete", "users", "-l", "made=test")).count("deleted") == 2
        held = render_made("Project", "held", extra=", finalizers: [tests.example.com/hold]")
        await kubectl.ok("apply", "-f", "-", stdin=held)
        deleting = asyncio.create_task(kubectl.run("delete", "project", "held"))
        async with asyncio.timeout(20):
            while not await kubectl.ok("get", "project", "held", "-o", "jsonpath={.metadata.deletionTimestamp}"):
                continue
        assert not deleting.done()
        await kubectl.ok("patch", "project", "held", "--type", "merge", "-p", '{"metadata":{"finalizers":null}}')
        assert (await deleting).code == 0

    async def test_dry_run_and_diff_write_nothing(self, kubectl):
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

    async def test_unknown_and_wrong_fields_are_refused_with_their_path(self, kubectl):
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

    async def test_server_side_apply_and_its_conflicts(self, kubectl):
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
            "apply",
            "--server-side",
            "--field-manager=a",
            "-f",
            "-",
            stdin=USER.replace("spec:\n  displayName: Eve\n", ""),
        )
        await kubectl.ok(
            "apply",
            "--server-side",
            "--field-manager=b",
            "-f",
            "-",
            stdin=USER.replace("spec:\n  displayName: Eve\n", ""),
        )
        assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}") == ""

    async def test_from_client_side_to_server_side_apply(self, kubectl):
        await kubectl.ok("apply", "-f", "-", stdin=USER)
        extra = [] if kubectl.minor >= 26 else ["--force-conflicts"]
        await kubectl.ok("apply", "--server-side", *extra, "-f", "-", stdin=USER.replace("Eve", "Server"))
        assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}") == "Server"
        await kubectl.ok("apply", "--server-side", "-f", "-", stdin=USER.replace("Eve", "Again"))

    async def test_edit(self, kubectl):
        await kubectl.ok("apply", "-f", "-", stdin=USER)
        editor = kubectl.home / "editor.sh"
        editor.write_text("#!/bin/sh\nsed -i 's/displayName: Eve/displayName: Edited/' \"$1\"\n")
        editor.chmod(0o755)
        kubectl.environment["EDITOR"] = str(editor)
        assert "edited" in await kubectl.ok("edit", "user", "eve")
        assert await kubectl.ok("get", "user", "eve", "-o", "jsonpath={.spec.displayName}") == "Edited"

    async def test_watch_and_wait(self, kubectl):
        process = await kubectl.start("get", "users", "-w")
        assert process.stdout is not None

        async def read() -> str:
            return (await asyncio.wait_for(process.stdout.readline(), 20)).decode()

        assert (await read()).startswith("NAME")
        while (await read()).split()[0] != "root":
            pass
        await kubectl.ok("apply", "-f", "-", stdin=USER)
        assert (await read()).split()[:3] == ["eve", "Eve", "true"]
        process.terminate()
        await process.communicate()
        deleting = asyncio.create_task(kubectl.run("wait", "user/eve", "--for=delete", "--timeout=20s"))
        await asyncio.sleep(1)
        await kubectl.ok("delete", "user", "eve")
        assert (await deleting).code == 0

    async def test_wait_for_a_condition(self, kubectl):
        await self.set_condition(kubectl, "c1", "False")
        waiting = asyncio.create_task(kubectl.run("wait", "cluster/c1", "--for=condition=Tested", "--timeout=20s"))
        await asyncio.sleep(1)
        assert not waiting.done()
        await self.set_condition(kubectl, "c1", "True")
        result = await waiting
        assert (result.code, "condition met" in result.out) == (0, True), result

    async def set_condition(self, kubectl, cluster: str, status: str) -> None:
        """Write the status subresource, by the way that every kubectl has; again when the hub's own write came between."""
        while True:
            result = await self._put_condition(kubectl, cluster, status)
            if result.code == 0:
                return
            assert "the object has been modified" in result.err, result

    async def _put_condition(self, kubectl, cluster: str, status: str):
        document = json.loads(await kubectl.ok("get", "cluster", cluster, "-o", "json"))
        conditions = [c for c in document.setdefault("status", {}).get("conditions", []) if c["type"] != "Tested"]
        moment = "2026-01-01T00:00:00Z"
        conditions.append(
            {"type": "Tested", "status": status, "reason": "Tested", "message": "", "lastTransitionTime": moment}
        )
        document["status"]["conditions"] = conditions
        path = f"/apis/management.herdsman.dev/v1/clusters/{cluster}/status"
        return await kubectl.run("replace", "--raw", path, "-f", "-", stdin=json.dumps(document))

    async def test_explain_and_api_resources(self, kubectl):
        said = await kubectl.ok("explain", "user.spec")
        assert "displayName" in said
        assert "The name that people see" in said
        assert "Can't change" in await kubectl.ok("explain", "rtb.metadata.name")
        assert "notAfter" in await kubectl.ok("explain", "roletemplatebindings", "--recursive")
        said = await kubectl.ok("api-resources", "--api-group=management.herdsman.dev", "-o", "name")
        assert {"users.management.herdsman.dev", "kubeconfigs.management.herdsman.dev"} <= set(said.split())
        assert "management.herdsman.dev/v1" in await kubectl.ok("api-versions")
        assert "Server Version" in await kubectl.ok("version")

    async def test_describe(self, kubectl):
        said = await kubectl.ok("describe", "user", "bob")
        assert "Name:         bob" in said
        assert re.search(r"^Events: +<none>$", said, re.MULTILINE)

    async def test_can_i_and_whoami(self, kubectl):
        assert (await kubectl.ok("auth", "can-i", "create", "users")).strip() == "yes"
        result = await kubectl.run("auth", "can-i", "create", "users", by="bob")
        assert (result.code, result.out.strip().split()[0]) == (1, "no")
        assert (await kubectl.ok("auth", "can-i", "update", "cluster/c1", by="ann")).strip() == "yes"
        assert (await kubectl.run("auth", "can-i", "update", "cluster/c2", by="ann")).code == 1
        assert "kubeconfigs.management.herdsman.dev" in await kubectl.ok("auth", "can-i", "--list", by="bob")
        if kubectl.minor >= 27:
            assert "root" in await kubectl.ok("auth", "whoami")

    async def test_namespaces_and_events_are_empty(self, kubectl):
        assert (await kubectl.run("get", "namespaces")).out == ""
        assert (await kubectl.run("get", "events")).out == ""
        await kubectl.fails("create", "namespace", "x")

    async def test_status_is_a_subresource(self, kubectl):
        if kubectl.minor >= 27:
            patch = '{"status":{"kubernetesVersion":"v1.99"},"spec":{"displayName":"no"}}'
            await kubectl.ok("patch", "cluster", "c2", "--subresource=status", "--type=merge", "-p", patch)
            written = ("get", "cluster", "c2", "-o", "jsonpath={.status.kubernetesVersion} {.spec.displayName}")
            assert (await kubectl.ok(*written)).strip() == "v1.99"
            await kubectl.ok("patch", "cluster", "c2", "--type=merge", "-p", '{"status":{"kubernetesVersion":"v1.1"}}')
            assert (await kubectl.ok(*written)).strip() == "v1.99"
