"""SCIM against a running hub: a conformance suite that is not of our making, then a person's life from the first push to the last."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
import httpx2
import pytest
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server

from integration.harness.hub import Hub
from integration.identity import nanoidp
from tests.conftest import no_task_is_left_behind

__all__ = ["no_task_is_left_behind"]
pytestmark = pytest.mark.timeout(300)
PASSWORD = "correct horse"
PEOPLE = {
    name: {"password": PASSWORD, "email": f"{name}@example.org", "groups": ["claimed"], "roles": ["USER"]}
    for name in ("jane", "john")
}
OURS = "/apis/management.herdsman.dev/v1"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
PROVISIONER = {
    "apiVersion": "management.herdsman.dev/v1", "kind": "RoleTemplate", "metadata": {"name": "sso-provisioner"},
    "spec": {
        "scope": "global",
        "hubRules": [
            {"apiGroups": ["management.herdsman.dev"], "resources": ["identityproviders"], "resourceNames": ["sso"], "verbs": ["provision"]}
        ],
    },
}  # fmt: skip


def provider(name: str, settings: dict[str, object], kind: str = "oidc", **spec: object) -> bytes:
    return json.dumps({
        "apiVersion": "management.herdsman.dev/v1", "kind": "IdentityProvider", "metadata": {"name": name},
        "spec": {"type": kind, kind: settings, **spec},
    }).encode()  # fmt: skip


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    with nanoidp.running(tmp_path_factory.mktemp("issuer"), PEOPLE) as made:
        yield made


@asynccontextmanager
async def hub_with_scim(issuer, folder):
    """A hub whose provider sso takes pushes, and the token of a service user who may push there and nothing else."""
    async with Hub(folder, "--no-local-cluster") as hub:
        admin = await hub.admin()
        settings = {**issuer.settings().to_document(), "scim": True}
        await admin.sees("herdsman", "apply", "-f", "-", stdin=provider("sso", settings, enabled=True))
        await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(PROVISIONER).encode())
        await admin.must("user", "create-service", "entra", "--description", "pushes users")
        await admin.must("grant", "--user", "entra", "--role", "sso-provisioner", "--global")
        token = (await admin.must("token", "create", "--for", "entra", "--description", "scim")).split()[0]
        yield hub, admin, token


class Pushing:
    """An identity provider's side."""

    def __init__(self, hub: Hub, token: str, name: str = "sso") -> None:
        self.base = f"{hub.url}/v1/scim/{name}/v2"
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=hub.tls()), headers={"Authorization": f"Bearer {token}"}
        )

    async def __aenter__(self) -> Pushing:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/scim+json"} if body is not None else {}
        async with self.http.request(method, f"{self.base}{path}", data=data, headers=headers) as answer:
            text = await answer.text()
            assert not text or answer.content_type == "application/scim+json", text
            return answer.status, json.loads(text) if text else {}

    async def must(self, status: int, method: str, path: str, body: object = None) -> dict:
        answered, document = await self.ask(method, path, body)
        assert answered == status, document
        return document

    async def patch(self, path: str, *operations: dict) -> tuple[int, dict]:
        return await self.ask("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)})


class Browser:
    """A person who signs in at the issuer."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=hub.tls()), cookie_jar=aiohttp.CookieJar(unsafe=True)
        )

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def sign_in(self, user: str) -> str:
        """What the hub's page tells; empty = the person is in."""
        async with self.http.get(f"{self.hub.url}/v1/sign-in/sso", allow_redirects=False) as begun:
            assert begun.status == 303
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as issuer:
            async with issuer.get(begun.headers["Location"]) as page:
                hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', await page.text()))
            form = {**hidden, "username": user, "password": PASSWORD}
            async with issuer.post(begun.headers["Location"], data=form, allow_redirects=False) as back:
                assert back.status == 302, await back.text()
        parameters = dict(parse_qsl(urlsplit(back.headers["Location"]).query))
        async with self.http.get(
            f"{self.hub.url}/v1/callback/sso", params=parameters, allow_redirects=False
        ) as finished:
            assert finished.status == 303
            problem = finished.cookies.get("__Host-herdsman-problem")
            return unquote(problem.value) if problem is not None else ""

    async def get(self, path: str) -> tuple[int, dict]:
        async with self.http.get(f"{self.hub.url}{path}") as answer:
            return answer.status, await answer.json()


def person(name: str, **more: object) -> dict:
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": f"{name}@example.org", "externalId": name, "active": True,
        "displayName": name.title(), **more,
    }  # fmt: skip


async def test_a_conformance_suite_finds_nothing_wrong(issuer, tmp_path):
    async with hub_with_scim(issuer, tmp_path / "hub") as (hub, _admin, token):

        def check():
            with httpx2.Client(
                base_url=f"{hub.url}/v1/scim/sso/v2", headers={"Authorization": f"Bearer {token}"}, verify=hub.tls(), timeout=30
            ) as http:  # fmt: skip
                return check_server(SyncSCIMClient(http))

        results = await asyncio.to_thread(check)
        wrong = [
            f"{r.resource_type} {r.title}: {r.reason}"
            for r in results
            if r.status not in (Status.SUCCESS, Status.SKIPPED)
        ]
        assert wrong == []
        counts = Counter(r.status for r in results)
        print(f"scim2-tester: {dict(counts)}")
        # Only the search over several types at once, which is optional, is left out.
        assert {r.title for r in results if r.status == Status.SKIPPED} <= {"search_with_attributes"}
        assert {"object_creation", "object_replacement", "object_deletion", "check_replace_attribute"} <= {
            r.title for r in results
        }
        assert counts[Status.SUCCESS] >= 40


async def test_a_pushed_person_has_the_pushed_groups_rights_until_the_provider_says_no(issuer, tmp_path):
    async with hub_with_scim(issuer, tmp_path / "hub") as (hub, admin, token):
        await admin.must("grant", "--principal", "sso:group:g-ops", "--role", "admin", "--global")
        await admin.must("grant", "--principal", "sso:group:claimed", "--role", "admin", "--global")
        async with Pushing(hub, token) as push, Browser(hub) as jane:
            made = await push.must(201, "POST", "/Users", person("jane"))
            status, document = await push.ask("POST", "/Users", person("jane", userName="other@example.org"))
            assert (status, document["scimType"]) == (409, "uniqueness")
            stored = json.loads(await admin.sees("herdsman", "get", "user", "jane", "-o", "json"))
            assert stored["metadata"]["uid"] == made["id"]
            assert stored["status"]["identities"][0]["principalId"] == "sso:user:jane"
            # The groups claim says "claimed", and what was pushed counts.
            assert await jane.sign_in("jane") == ""
            assert (await jane.get("/v1/session"))[0] == 200
            assert (await jane.get(f"{OURS}/identityproviders"))[0] == 403
            group = await push.must(201, "POST", "/Groups", {
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "Operations team", "externalId": "g-ops",
            })  # fmt: skip
            members = {"op": "Add", "path": "members", "value": [{"$ref": None, "value": made["id"]}]}
            assert await push.patch(f"/Groups/{group['id']}", members) == (204, {})
            assert [m["value"] for m in (await push.must(200, "GET", f"/Groups/{group['id']}"))["members"]] == [
                made["id"]
            ]
            await until(lambda: jane.get(f"{OURS}/identityproviders"), 200)
            # A new sign-in keeps them.
            assert await jane.sign_in("jane") == ""
            assert (await jane.get(f"{OURS}/identityproviders"))[0] == 200
            # Deactivated, as Entra ID writes it.
            status, _ = await push.patch(f"/Users/{made['id']}", {"op": "Replace", "path": "active", "value": "False"})
            assert status == 200
            took_s = await until(lambda: jane.get("/v1/session"), 401)
            assert took_s < 1
            assert "was deactivated there" in await jane.sign_in("jane")
            assert (await jane.get("/v1/session"))[0] == 401
            # And back, in the same groups.
            await push.patch(f"/Users/{made['id']}", {"op": "replace", "value": {"active": True}})
            assert (await jane.get("/v1/session"))[0] == 401
            assert await jane.sign_in("jane") == ""
            assert (await jane.get(f"{OURS}/identityproviders"))[0] == 200
            # Out of the group, as Okta writes it.
            out = {"op": "remove", "path": f'members[value eq "{made["id"]}"]'}
            assert (await push.patch(f"/Groups/{group['id']}", out))[0] == 204
            await until(lambda: jane.get(f"{OURS}/identityproviders"), 403)
            assert await push.ask("DELETE", f"/Users/{made['id']}") == (204, {})
            assert await until(lambda: jane.get("/v1/session"), 401) < 1
            assert (await push.ask("GET", f"/Users/{made['id']}"))[0] == 404
            stored = json.loads(await admin.sees("herdsman", "get", "user", "jane", "-o", "json"))
            assert stored["status"].get("identities", []) == []


async def test_who_may_push_where(issuer, tmp_path):
    async with hub_with_scim(issuer, tmp_path / "hub") as (hub, admin, token):
        settings = issuer.settings().to_document()
        await admin.sees("herdsman", "apply", "-f", "-", stdin=provider("quiet", settings))
        directory = {"servers": ["ldaps://directory.example"], "userBase": "dc=example"}
        await admin.sees("herdsman", "apply", "-f", "-", stdin=provider("corp", directory, "ldap"))
        everything = {**PROVISIONER["spec"]["hubRules"][0]}
        everything.pop("resourceNames")
        role = {
            **PROVISIONER,
            "metadata": {"name": "provisioner"},
            "spec": {"scope": "global", "hubRules": [everything]},
        }
        await admin.sees("herdsman", "apply", "-f", "-", stdin=json.dumps(role).encode())
        async with Pushing(hub, token, "quiet") as push:
            status, document = await push.ask("GET", "/Users")
            assert status == 403
            assert "right to provision it is missing" in document["detail"]
        await admin.must("grant", "--user", "entra", "--role", "provisioner", "--global")
        async with Pushing(hub, token, "quiet") as push:
            await until(
                lambda: told(push), 'the provider "quiet" does not take pushed users: set spec.oidc.scim to true'
            )
        async with Pushing(hub, token, "corp") as push:
            assert "SCIM is for providers of type oidc" in await told(push)
        own = (await admin.must("token", "create", "--description", "mine")).split()[0]
        async with Pushing(hub, own) as push:
            assert "a service user" in await told(push)
        assert (await hub.get("/v1/scim/sso/v2/Users"))[0] == 401


async def told(push: Pushing) -> str:
    return (await push.ask("GET", "/Users"))[1]["detail"]


async def until(look, wanted: object, timeout_s: float = 10) -> float:
    """Seconds until a look gives the wanted status, or text."""
    began = time.monotonic()
    while True:
        seen = await look()
        if (seen[0] if isinstance(seen, tuple) else seen) == wanted:
            return time.monotonic() - began
        assert time.monotonic() - began < timeout_s, seen
        await asyncio.sleep(0.02)
