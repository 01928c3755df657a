"""Reading the audit log over HTTP: who sees what, pages that can be taken up again, what comes, and seals for verification."""

from __future__ import annotations

import asyncio
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.audit.chain import Position, seal_batch
from libs.common.audit.event import format_micro
from libs.common.audit.stream import audit_stream
from libs.common.audit.verify import LogVerifier
from libs.common.bus.journal import open_journal
from libs.common.resources.access import RoleTemplate
from services.cli.audit_log import verify_lines
from services.gateway import audit
from tests.gateway.support import OURS, Hub, real_monotonic

EVENTS = f"{OURS}/auditevents"
KEY = Ed25519PrivateKey.generate()
PREFIX = "audit.herdsman.dev/"


class Log:
    """Writes events into the hub's journal, as a front door does."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.journal = open_journal(hub.bus, audit_stream())
        self.journal._now = hub.now
        self.position, self.after, self.number = Position(), 0, 0

    def event(self, **facts) -> bytes:
        self.number += 1
        notes = {f"{PREFIX}decision": facts.get("decision", "allow")}
        if "cluster" in facts:
            notes |= {
                f"{PREFIX}cluster": facts["cluster"],
                f"{PREFIX}clusterUid": facts.get("uid", f"uid-{facts['cluster']}"),
            }
        document = {
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "n": self.number, "verb": facts.get("verb", "get"),
            "user": {"username": facts.get("user", "ann")}, "responseStatus": {"code": facts.get("code", 200)},
            "stageTimestamp": format_micro(self.hub.now().timestamp()), "annotations": notes,
        }  # fmt: skip
        if "resource" in facts:
            plural, _, sub = facts["resource"].partition("/")
            document["objectRef"] = {"resource": plural, "subresource": sub, "apiGroup": facts.get("group", "")}
        return json.dumps(document, separators=(",", ":")).encode()

    async def add(self, *lines: bytes) -> None:
        message, self.position = seal_batch(
            KEY, "chain", self.position, lines, format_micro(self.hub.now().timestamp())
        )
        self.after = await self.journal.append("audit.v1.chain", message, after=self.after)


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        yield running


@pytest.fixture
def log(hub) -> Log:
    return Log(hub)


async def page(hub, query="", **more):
    """(status, numbers of the events, the page's own line)."""
    async with hub.request("GET", f"{EVENTS}?{query}", **more) as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
        if response.status != 200:
            return response.status, [], lines[0]
        return 200, [e["n"] for e in lines[:-1]], lines[-1]


async def test_who_may_read_all_sees_all_an_owner_the_own_cluster_and_others_nothing(hub, log):
    uid = (await hub.call("GET", f"{OURS}/clusters/c1"))[1]["metadata"]["uid"]
    await log.add(
        log.event(), log.event(cluster="c1", uid=uid), log.event(cluster="c2"), log.event(cluster="c1", uid="an earlier one")
    )  # fmt: skip
    assert numbers_of(await page(hub)) == [1, 2, 3, 4]
    status, _, document = await page(hub, by="bob")
    assert (status, document["reason"]) == (403, "Forbidden")
    assert (await page(hub, by="ann"))[0] == 403  # the role of this test's owner has no right to events
    role = (await hub.call("GET", f"{OURS}/roletemplates/cluster-owner"))[1]
    role["spec"]["hubRules"].append({"verbs": ["list", "watch"], "apiGroups": ["management.herdsman.dev"], "resources": ["auditevents"]})  # fmt: skip
    await put_role(hub, role)
    assert numbers_of(await page(hub, by="ann")) == [2]
    assert (await page(hub, "seals=true", by="ann"))[0] == 403
    assert (await page(hub, by=None))[0] == 401


async def put_role(hub, document):
    document["metadata"] = {k: v for k, v in document["metadata"].items() if k in ("name", "uid", "creationTimestamp")}
    await hub.put(RoleTemplate.model_validate(document))


def numbers_of(answer):
    status, numbers, _ = answer
    assert status == 200
    return numbers


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("user=ann", [1, 2, 5]), ("verb=create", [2]), ("cluster=c1", [3]), ("cluster=", [1, 2, 4, 5]), ("denied=true", [4, 5]),
        ("resource=pods", [2, 3]), ("resource=pods/exec", [2]), ("resource=pods.apps", []), ("resource=deployments.apps", [4]),
        ("user=ann&denied=true", [5]),
    ],
)  # fmt: skip
async def test_filters_choose_events(hub, log, query, expected):
    await log.add(
        log.event(),
        log.event(verb="create", resource="pods/exec"),
        log.event(user="bob", cluster="c1", resource="pods"),
        log.event(user="bob", code=403, resource="deployments", group="apps"),
        log.event(decision="forbid", code=503),
    )
    assert numbers_of(await page(hub, query)) == expected


async def test_pages_follow_each_other_over_batches_and_end(hub, log):
    for _ in range(4):
        await log.add(*[log.event() for _ in range(5)])
    seen, start, pages = [], "", 0
    while True:
        _, numbers, end = await page(hub, f"limit=3&continue={start}" if start else "limit=3")
        seen += numbers
        pages += 1
        assert len(numbers) <= 3
        start = end["continue"]
        if not start:
            break
    assert seen == list(range(1, 21))
    # `next` of the last page takes up what comes later.
    await log.add(log.event())
    assert numbers_of(await page(hub, f"continue={end['next']}")) == [21]


async def test_a_time_is_found_in_the_log_without_reading_it_all(hub, log, clock):
    moments = []
    for _ in range(30):
        moments.append(clock().isoformat().replace("+00:00", "Z"))
        await log.add(log.event())
        clock.forward(1)
    asked = []
    real = log.journal.next

    async def count(sequence):
        asked.append(sequence)
        return await real(sequence)

    log.journal.next = count
    assert numbers_of(await page(hub, f"since={moments[25]}")) == [26, 27, 28, 29, 30]
    assert len(asked) < 15
    assert numbers_of(await page(hub, f"since={moments[3]}&until={moments[5]}")) == [4, 5, 6]


@pytest.mark.parametrize(
    "query", ["continue=x", "continue=1", "since=yesterday", "since=2026-01-01T00:00:00", "denied=maybe"]
)
async def test_parameters_that_make_no_sense_are_400(hub, query):
    assert (await page(hub, query))[0] == 400


async def test_a_watch_goes_on_with_what_comes_and_ends_with_the_right(hub, log):
    await log.add(log.event())
    _, _, end = await page(hub)
    async with hub.request("GET", f"{EVENTS}?watch=true&continue={end['next']}") as response:
        assert response.status == 200
        await log.add(log.event(), log.event())
        async with asyncio.timeout(5):
            lines = [json.loads(await response.content.readline()) for _ in range(3)]
            assert [line.get("n") for line in lines] == [2, 3, None]
            assert lines[2]["kind"] == "AuditPage"
            await hub.remove("roletemplatebindings", "root-admin")
            status = json.loads(await response.content.readline())
            assert (status["kind"], status["code"]) == ("Status", 403)
            assert await response.content.readline() == b""


async def test_silence_has_signs_of_life(hub, log, monkeypatch):
    monkeypatch.setattr(audit, "KEEP_ALIVE_S", 0.0)
    async with hub.request("GET", f"{EVENTS}?watch=true") as response:
        async with asyncio.timeout(5):
            assert json.loads(await response.content.readline())["kind"] == "AuditPage"


async def test_seals_make_what_is_read_verifiable(hub, log):
    for _ in range(3):
        await log.add(log.event(), log.event())
    async with hub.request("GET", f"{EVENTS}?seals=true&limit=2") as response:
        lines = (await response.read()).splitlines()[:-1]
    verifier = LogVerifier(KEY.public_key())
    verify_lines(verifier, lines, "line")
    assert (verifier.finish(hub.now()), verifier.events) == ([], 2)
    changed = [line.replace(b'"n":1', b'"n":9') for line in lines]
    verifier = LogVerifier(KEY.public_key())
    verify_lines(verifier, changed, "line")
    assert verifier.worst == "broken"
    for query in ("user=ann", "denied=true", "cluster="):
        assert (await page(hub, f"seals=true&{query}"))[0] == 403


async def test_what_is_no_batch_is_told_to_who_verifies_and_hides_nothing_else(hub, log):
    await log.add(log.event())
    await log.journal.append("audit.v1.rubbish", b"rubbish", after=0)
    await log.add(log.event())
    assert numbers_of(await page(hub)) == [1, 2]
    async with hub.request("GET", f"{EVENTS}?seals=true") as response:
        lines = (await response.read()).splitlines()[:-1]
    verifier = LogVerifier(KEY.public_key())
    verify_lines(verifier, lines, "line")
    assert [f.text for f in verifier.finish() if f.severity == "broken"] == [
        "line 3: this is no batch: it has no header"
    ]


async def test_may_i_read_events_is_answered(hub):
    for who, allowed in (("root", True), ("bob", False)):
        review = {
            "spec": {
                "resourceAttributes": {"group": "management.herdsman.dev", "resource": "auditevents", "verb": "list"}
            }
        }
        _, document = await hub.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, by=who)
        assert document["status"]["allowed"] is allowed
