"""Accounts of the hub itself, against a whole hub: what a person may do who must change the password, or set up a second factor, first."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio

from integration.harness.hub import BIN, GIVEN, PASSWORD, Hub, Person, eventually
from integration.identity.device import code_of
from services.cli.settings import load_settings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
API = "/apis/management.herdsman.dev/v1"
CLUSTER = b'{"apiVersion":"management.herdsman.dev/v1","kind":"Cluster","metadata":{"name":"prod"},"spec":{}}'
PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"
UNTIL = "nothing else is allowed"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory) -> AsyncIterator[Hub]:
    async with Hub(tmp_path_factory.mktemp("accounts"), "--no-local-cluster") as running:
        admin = await running.admin()
        await admin.sees("herdsman", "create", "-f", "-", stdin=CLUSTER)
        yield running


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


# ── groups ──


async def test_a_group_gives_its_role_to_who_is_let_in_and_takes_it_from_who_is_taken_out(hub):
    admin, ida = await hub.admin(), await hub.person("ida")
    token = token_of(ida)
    await admin.must("group", "create", "ops", "--description", "who keeps prod", "--display-name", "Operations")
    await admin.must("grant", "--group", "ops", "--role", "cluster-viewer", "--cluster", "prod")
    assert (await hub.get(PODS, token))[0] == 403

    def answers(status: int):
        async def check() -> bool:
            return (await hub.get(PODS, token))[0] == status

        return check

    await admin.must("group", "add", "ops", "ida")
    await eventually(answers(503), 1, 0.02)  # let through to a cluster that is not connected
    assert "prod" in await ida.must("cluster", "list")
    watch = await asyncio.create_subprocess_exec(
        *("curl", "-sN", "--cacert", str(hub.ca_file), "-H", f"Authorization: Bearer {token}"),
        f"{hub.url}{API}/clusters?watch=true", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert watch.stdout is not None
        async with asyncio.timeout(10):
            assert b'"prod"' in await watch.stdout.readline()
        await admin.must("group", "remove", "ops", "ida")
        async with asyncio.timeout(5):
            await watch.stdout.read()
            await watch.wait()
    finally:
        if watch.returncode is None:
            watch.kill()
            await watch.wait()
    await eventually(answers(403), 1, 0.02)
    await admin.must("group", "add", "ops", "ida")
    await eventually(answers(503), 1, 0.02)
    await admin.must("group", "delete", "ops", "--yes")
    await eventually(answers(403), 1, 0.02)


async def test_who_keeps_groups_lets_nobody_into_more_than_they_hold(hub):
    admin, kim = await hub.admin(), await hub.person("kim")
    role = {
        "apiVersion": "management.herdsman.dev/v1", "kind": "RoleTemplate", "metadata": {"name": "group-keeper"},
        "spec": {"scope": "global", "hubRules": [{
            "apiGroups": ["management.herdsman.dev"], "resources": ["groups"], "verbs": ["get", "list", "create", "update", "patch", "delete"],
        }]},
    }  # fmt: skip
    await admin.sees("herdsman", "create", "-f", "-", stdin=json.dumps(role).encode())
    await admin.must("grant", "--user", "kim", "--role", "group-keeper", "--global")
    await kim.must("group", "create", "friends")
    await kim.must("group", "add", "friends", "kim")
    await kim.must("group", "remove", "friends", "kim")
    await admin.must("grant", "--group", "friends", "--role", "admin", "--global")

    refused = await kim.herdsman("group", "add", "friends", "kim")
    assert refused.code == 4
    assert "rights that you lack" in refused.err
    for verb in ("patch", "apply", "replace"):
        body = {
            "apiVersion": role["apiVersion"],
            "kind": "Group",
            "metadata": {"name": "friends"},
            "spec": {"members": ["kim"]},
        }
        extra = ("group", "friends", "--type", "merge", "-p", json.dumps(body)) if verb == "patch" else ("-f", "-")
        if verb == "apply":
            extra = ("--server-side", "--force-conflicts", *extra)
        answer = await kim.kubectl("herdsman", verb, *extra, stdin=json.dumps(body).encode())
        assert answer.code != 0
        assert "rights that you lack" in answer.err, verb
    assert "admin" not in await kim.must("user", "list")
    listed = await admin.must("group", "list")
    assert re.search(r"friends\s+<none>\s+0", listed), listed


async def test_a_search_for_principals_finds_groups(hub):
    admin = await hub.admin()
    await admin.must("group", "create", "searchers", "admin")
    found = await admin.must("provider", "search", "searcher", "--kind", "group")
    assert "local:group:" in found
    assert "searchers" in found


# ── guessing ──


async def guess(hub: Hub, address: str, user: str, password: str, times: int = 1) -> list[int]:
    """The statuses of sign-ins from one address, over one connection."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", hub.port, ssl=hub.tls(), server_hostname="localhost", local_addr=(address, 0)
    )
    statuses = []
    try:
        body = json.dumps({"user": user, "password": password}).encode()
        head = f"POST /v1/login HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        for _ in range(times):
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            statuses.append(int(answer.split(b" ", 2)[1]))
            length = re.search(rb"(?i)content-length: (\d+)", answer)
            assert length is not None
            await reader.readexactly(int(length[1]))
    finally:
        writer.close()
    return statuses


async def test_a_thousand_guesses_from_elsewhere_keep_nobody_out(hub):
    """Strangers guess at one name from a hundred addresses and never pause; the person came from here before."""
    await hub.person("lea")
    lea = hub.people["lea"]
    strangers = [
        asyncio.create_task(guess(hub, f"127.9.{n}.1", "lea", "a wrong password", 10)) for n in range(100)
    ]  # fmt: skip
    signed_in = 0
    while not all(task.done() for task in strangers):
        await lea.log_in(hub.folder / "lea.password")
        signed_in += 1
    statuses = [status for task in strangers for status in task.result()]
    assert len(statuses) == 1000
    assert set(statuses) <= {401, 429, 503}
    assert statuses.count(429) > 800
    assert signed_in
    # Whoever comes from where nobody came from waits after a wrong guess, with the right password, too: some seconds, and not for ever.

    async def has_guessed() -> bool:
        return await guess(hub, "127.9.201.1", "lea", "a wrong password") == [401]

    await eventually(has_guessed, 20, 0.05)
    assert await guess(hub, "127.9.200.1", "lea", PASSWORD) == [429]
    await lea.log_in(hub.folder / "lea.password")


# ── second factors, on a real terminal ──


class Terminal:
    """`herdsman` on a pseudo-terminal of its own; what it prints for scripts goes to a pipe."""

    def __init__(self, person: Person, *arguments: str) -> None:
        self._end, theirs = os.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [str(BIN / "herdsman"), *arguments], stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "HERDSMAN_CONFIG_DIR": str(person.folder)},
        )  # fmt: skip
        os.close(theirs)

    def until(self, pattern: str) -> re.Match[str]:
        """The first place that fits in what stands on the terminal."""
        while (found := re.search(pattern, self.seen)) is None:
            try:
                read = os.read(self._end, 65536)
            except OSError as exc:
                raise AssertionError(f"it ended without {pattern!r}:\n{self.seen}") from exc
            self.seen += read.decode(errors="replace")
        return found

    def type(self, text: str) -> None:
        self.seen = ""
        os.write(self._end, f"{text}\n".encode())

    def finish(self) -> tuple[int, str]:
        """Exit code, and what went to the pipe."""
        assert self.process.stdout is not None
        printed = self.process.stdout.read().decode()
        return self.process.wait(timeout=30), printed

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        os.close(self._end)


def set_up(person: Person) -> tuple[str, list[str]]:
    """`herdsman user second-factor set` as a person uses it. Returns the device's secret and the recovery codes."""
    with closing(Terminal(person, "user", "second-factor", "set")) as terminal:
        terminal.until("Your password: ")
        terminal.type(PASSWORD)
        secret = terminal.until(r"give it the secret: ([A-Z2-7 ]+)\r")[1].replace(" ", "")
        assert "█" in terminal.seen
        terminal.until("The code that it shows now: ")
        terminal.type("000000")
        terminal.until("check the clock of the device[^:]*: ")
        terminal.type(code_of(secret))
        terminal.until("the only time that they are shown")
        code, printed = terminal.finish()
        assert code == 0, terminal.seen
        return secret, printed.split()


async def test_a_person_sets_up_a_second_factor_on_the_command_line_and_removes_it(hub):
    await hub.person("fay")
    fay = hub.people["fay"]
    secret, codes = await asyncio.to_thread(set_up, fay)
    assert len(set(codes)) == 10
    again = ("login", hub.url, "--user", "fay", "--password-file", str(hub.folder / "fay.password"))
    assert (await fay.herdsman(*again)).code == 4
    await fay.must(*again, "--one-time-code", code_of(secret, steps=1))
    mine = ("user", "second-factor", "remove", "--password-file", str(hub.folder / "fay.password"))
    assert (await fay.herdsman(*mine, "--one-time-code", "000000")).code == 4
    await fay.must(*mine, "--one-time-code", codes[0])
    await fay.must(*again)


async def test_an_administrator_removes_the_second_factor_of_who_lost_the_device(hub):
    await hub.person("gus")
    gus = hub.people["gus"]
    await asyncio.to_thread(set_up, gus)
    assert (await gus.herdsman("user", "second-factor", "remove", "admin", "--yes")).code == 4
    await (await hub.admin()).must("user", "second-factor", "remove", "gus", "--yes")
    await gus.must("login", hub.url, "--user", "gus", "--password-file", str(hub.folder / "gus.password"))


async def test_where_a_second_factor_is_required_nothing_else_is_allowed_before(tmp_path):
    async with Hub(tmp_path, "--no-local-cluster") as hub:
        hal, admin = await hub.person("hal"), await hub.admin()
        made = await hal.must("token", "create", "--description", "mine")
        token, api_token = token_of(hal), next(word for word in made.split() if word.startswith("hm_"))
        required = json.dumps({"spec": {"local": {"requireOneTimeCode": True}}})
        await admin.sees("herdsman", "patch", "identityprovider", "local", "--type", "merge", "-p", required)

        async def is_refused() -> bool:
            return (await hub.get("/api", token))[0] == 403

        await eventually(is_refused, 1)
        for command in COMMANDS[:5]:
            answer = await hal.herdsman(*command)
            assert answer.code == 4, (command, answer.err)
            assert '"herdsman user second-factor set"' in answer.err
        assert (await hub.get("/api", api_token))[0] == 200, "a script cannot give a code"
        # Whoever asked for it is no exception: the administrator has none either.
        assert (await admin.herdsman("user", "list")).code == 4
        await asyncio.to_thread(set_up, hal)
        await hal.must("cluster", "list")
        assert token_of(hal) == token
