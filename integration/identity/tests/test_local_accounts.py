"""Accounts of the hub itself, against a whole hub: what a person may do who must change the password, or set up a second factor, first."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from integration.harness.hub import GIVEN, PASSWORD, Hub, Person, eventually
from services.cli.settings import load_settings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
API = "/apis/management.herdsman.dev/v1"
CLUSTER = b'{"apiVersion":"management.herdsman.dev/v1","kind":"Cluster","metadata":{"name":"prod"},"spec":{}}'
PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"
UNTIL = "nothing else is allowed"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory) -> AsyncIterator[Hub]:
    running = Hub(tmp_path_factory.mktemp("accounts"), "--no-local-cluster")
    await running.start()
    try:
        admin = await running.admin()
        await admin.sees("herdsman", "create", "-f", "-", stdin=CLUSTER)
        yield running
    finally:
        await running.stop()


def token_of(person: Person) -> str:
    (server,) = load_settings(person.folder / "config.json").servers.values()
    return server.token


async def newcomer(hub: Hub, name: str, *rights: str) -> Person:
    """Somebody whom the administrator made, signed in with what the administrator gave."""
    given, chosen = hub.folder / f"{name}.given", hub.folder / f"{name}.password"
    given.write_text(GIVEN)
    chosen.write_text(PASSWORD)
    admin = await hub.admin()
    await admin.must("user", "create", name, "--password-file", str(given))
    await admin.must("grant", "--user", name, *(rights or ("--role", "admin", "--global")))
    person = Person(hub, name, hub.folder / "people" / name)
    await person.log_in(given)
    return person


async def change(person: Person) -> str:
    folder = person.hub.folder
    answer = await person.herdsman(
        "password", "--password-file", str(folder / f"{person.name}.given"), "--new-password-file", str(folder / f"{person.name}.password")
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return answer.err


COMMANDS = [
    ("token", "create", "--description", "mine"),
    ("kubeconfig", "--static"),
    ("kubeconfig",),
    ("credential",),
    ("credential", "--cluster", "prod"),
    ("user", "list"),
    ("user", "create", "mallory", "--password-file"),
    ("grant", "--user", "admin", "--role", "cluster-viewer", "--cluster", "prod"),
    ("cluster", "list"),
    ("audit", "tail"),
    ("token", "list"),
]


async def test_a_password_that_somebody_else_set_is_good_for_changing_it_and_nothing_else(hub):
    ada = await newcomer(hub, "ada")
    await (await hub.admin()).must("grant", "--user", "ada", "--role", "cluster-viewer", "--cluster", "prod")
    token = token_of(ada)
    for command in COMMANDS:
        more = (str(hub.folder / "ada.given"),) if command[-1] == "--password-file" else ()
        answer = await ada.herdsman(*command, *more)
        assert answer.code == 4, (command, answer.out, answer.err)
        assert UNTIL in answer.err, command
        assert '"herdsman password"' in answer.err, command
    for path in (PODS, f"{API}/users", f"{API}/clusters?watch=true", "/v1/principals?text=a", "/api", "/openapi/v3"):
        status, body = await hub.get(path, token)
        assert status == 403, path
        told = json.loads(body)
        assert (told["kind"], told["reason"]) == ("Status", "Forbidden")
        assert UNTIL in told["message"]
    # Nor is another's password hers to set.
    refused = await ada.herdsman("password", "admin", "--new-password-file", str(hub.folder / "ada.given"))
    assert refused.code == 4
    assert UNTIL in refused.err
    status, body = await hub.get("/v1/session", token)
    assert status == 200
    assert json.loads(body)["must_change_password"] is True
    await change(ada)
    # With the very next command, and with the same sign-in.
    assert "ada" in await ada.must("user", "list")
    assert token_of(ada) == token
    assert (await hub.get(PODS, token))[0] == 503, "the cluster is not connected, and she is let through to it"


async def test_who_must_change_the_password_can_sign_out(hub):
    eve = await newcomer(hub, "eve")
    token = token_of(eve)
    await eve.must("logout")

    async def is_refused() -> bool:
        return (await hub.get("/v1/session", token))[0] == 401

    await eventually(is_refused, 2)


async def test_a_reset_ends_every_token_and_has_to_be_changed_again(hub):
    bob = await newcomer(hub, "bob", "--role", "cluster-viewer", "--global")
    await change(bob)
    made = await bob.must("token", "create", "--description", "mine")
    api_token = next(word for word in made.split() if word.startswith("hm_"))
    assert (await hub.get(f"{API}/clusters", api_token))[0] == 200
    await (await hub.admin()).must("password", "bob", "--new-password-file", str(hub.folder / "bob.given"))

    async def is_refused() -> bool:
        return (await hub.get(f"{API}/clusters", api_token))[0] == 401

    await eventually(is_refused, 2)
    await bob.log_in(hub.folder / "bob.given")
    assert UNTIL in (await bob.herdsman("cluster", "list")).err
    await change(bob)
    assert "prod" in await bob.must("cluster", "list")


async def test_a_password_that_everybody_tries_first_is_refused_and_the_person_told_what_to_take(hub):
    cleo = await newcomer(hub, "cleo")
    common = hub.folder / "common"
    common.write_text("Password-2026!")
    refused = await cleo.herdsman(
        "password", "--password-file", str(hub.folder / "cleo.given"), "--new-password-file", str(common)
    )
    assert refused.code != 0
    assert "several words that do not belong together" in refused.err
    await change(cleo)
