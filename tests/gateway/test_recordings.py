"""Who may see recorded sessions, what they see of them, and what happens to one that is not genuine."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from libs.common.access.principal import Principal
from libs.common.recording.chain import Sealer
from libs.common.recording.events import STDOUT, Event
from libs.common.recording.log import StoredPart
from tests.apiserver.support import make_binding, make_principal, make_role, make_user
from tests.gateway.support import Hub, real_monotonic
from tests.recording.made import OTHER, facts, outcome
from tests.recording.memory import MemoryLog

READING = {"verbs": ["get", "list"], "apiGroups": ["management.herdsman.dev"], "resources": ["sessionrecordings"]}
FIRST, SECOND, THIRD = (f"20260301t12000{n}-0000000{n}" for n in (1, 2, 3))
ROOT = "/v1/recordings"


class Rig:
    def __init__(self, hub: Hub, log: MemoryLog) -> None:
        self.hub, self.log = hub, log

    def store(self, id_: str, *, end: bool = True, signer=None, **more: object) -> None:
        sealer = Sealer(signer or self.hub.keys.signer)
        given = {"id": id_, "cluster": "c1", "cluster_uid": "uid-c1"} | more
        messages = [sealer.head(facts(**given)), sealer.part([Event(5, STDOUT, b"\xffone")]), sealer.part([Event(9, STDOUT, b"two")])]  # fmt: skip
        if end:
            messages.append(sealer.end(outcome()))
        self.log.parts += [StoredPart(id_, message.kind, message.data) for message in messages]

    async def ids(self, query: str = "", by: str | Principal = "root") -> list[str]:
        status, document = await self.hub.call("GET", ROOT + query, by=by)
        assert status == 200, document
        return [item["facts"]["id"] for item in document["items"]]

    async def lines(self, id_: str, by: str = "root"):
        async with self.hub.request("GET", f"{ROOT}/{id_}/events", by=by) as response:
            text = await response.text()
            return response.status, [json.loads(line) for line in text.splitlines()]


@pytest.fixture
async def rig(clock, tmp_path) -> AsyncIterator[Rig]:
    hub, log = Hub(clock, tmp_path, real_monotonic), MemoryLog()
    hub.state = replace(hub.state, recordings=log)
    async with hub.running():
        made = Rig(hub, log)
        made.store(FIRST)
        made.store(SECOND, user="bob", cluster="c2", cluster_uid="uid-c2", command=["id"])
        made.store(THIRD, end=False)
        yield made


async def test_the_list_is_newest_first_and_says_how_each_ended(rig):
    status, document = await rig.hub.call("GET", ROOT)
    assert status == 200
    assert [item["facts"]["id"] for item in document["items"]] == [THIRD, SECOND, FIRST]
    assert [item["outcome"] and item["outcome"]["exitCode"] for item in document["items"]] == [None, 0, 0]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?user=bob", [SECOND]),
        ("?cluster=c1", [THIRD, FIRST]),
        ("?user=bob&cluster=c1", []),
        ("?since=2026-03-01T12:00:02Z", [THIRD, SECOND]),
    ],
)
async def test_the_list_is_narrowed(rig, query, found):
    assert await rig.ids(query) == found


@pytest.mark.parametrize("since", ["yesterday", "2026-03-01", "2026-03-01T12:00:00"])
async def test_a_moment_that_is_none_is_a_bad_request(rig, since):
    assert (await rig.hub.call("GET", f"{ROOT}?since={since}"))[0] == 400


async def test_events_come_as_they_were_stored_and_are_checked(rig):
    status, lines = await rig.lines(FIRST)
    assert status == 200
    assert lines[0]["facts"]["user"] == "ada"
    assert [(ms, channel, base64.b64decode(data)) for ms, channel, data in lines[1:-1]] == [(5, 1, b"\xffone"), (9, 1, b"two")]  # fmt: skip
    assert lines[-1]["check"] == {"messages": 4, "problem": ""}
    assert lines[-1]["outcome"]["exitCode"] == 0


async def test_an_unfinished_one_is_genuine_and_has_no_outcome(rig):
    status, document = await rig.hub.call("GET", f"{ROOT}/{THIRD}")
    assert (status, document["outcome"], document["check"]) == (200, None, {"messages": 3, "problem": ""})


async def test_nothing_behind_a_changed_message_is_sent(rig):
    at = next(n for n, part in enumerate(rig.log.parts) if part.id == FIRST) + 2
    part = rig.log.parts[at]
    rig.log.parts[at] = replace(part, data=part.data[:-1] + bytes([part.data[-1] ^ 1]))
    _, lines = await rig.lines(FIRST)
    assert [base64.b64decode(line[2]) for line in lines[1:-1]] == [b"\xffone"]
    assert "was not signed" in lines[-1]["check"]["problem"]
    assert "was not signed" in (await rig.hub.call("GET", f"{ROOT}/{FIRST}"))[1]["check"]["problem"]


async def test_one_of_another_key_is_not_listed_and_told_to_who_may_see_all(rig):
    rig.store("20260301t120009-00000009", signer=OTHER)
    assert "20260301t120009-00000009" not in await rig.ids()
    assert (await rig.hub.call("GET", f"{ROOT}/20260301t120009-00000009"))[0] == 409


@pytest.mark.parametrize("id_", ["20260301t120001-ffffffff", "nonsense", "*", "20260301t120001-0000000%3E"])
async def test_what_is_not_there_is_not_found(rig, id_):
    assert (await rig.hub.call("GET", f"{ROOT}/{id_}"))[0] == 404
    assert (await rig.lines(id_))[0] == 404


@pytest.mark.parametrize("path", ["", f"/{FIRST}", f"/{FIRST}/events"])
@pytest.mark.parametrize(("who", "status"), [("root", 200), ("ann", 403), ("bob", 403), (None, 401)])
async def test_only_who_has_the_right_reads_and_owners_of_a_cluster_have_it_not(rig, path, who, status):
    async with rig.hub.request("GET", ROOT + path, by=who) as response:
        assert response.status == status


async def test_an_auditor_reads_all(rig):
    await rig.hub.put(make_role("auditor", "global", [READING]))
    await rig.hub.put(make_user("eve"))
    await rig.hub.put(make_binding("eve", "auditor", {"global": True}))
    assert await rig.ids(by="eve") == [THIRD, SECOND, FIRST]
    assert (await rig.lines(SECOND, by="eve"))[0] == 200


async def test_a_cluster_role_with_the_right_reads_its_own_cluster_and_no_later_one_of_that_name(rig):
    await rig.hub.put(make_role("watcher", "cluster", [READING]))
    await rig.hub.put(make_binding("bob", "watcher", {"cluster": "c1"}))
    rig.store("20260301t120005-00000005", cluster="c1", cluster_uid="an-earlier-one")
    assert await rig.ids(by="bob") == [THIRD, FIRST]
    assert (await rig.lines(FIRST, by="bob"))[0] == 200
    assert (await rig.lines(SECOND, by="bob"))[0] == 404
    assert (await rig.lines("20260301t120005-00000005", by="bob"))[0] == 404


async def test_a_token_that_is_good_for_one_cluster_reads_none(rig):
    narrow = make_principal("root").model_copy(update={"clusters": ["c1"]})
    assert (await rig.hub.call("GET", ROOT, by=narrow))[0] == 403


async def test_without_the_bus_it_says_so(rig):
    rig.log.away = True
    assert (await rig.hub.call("GET", ROOT))[0] == 503
