"""Watches through the hub: the same bytes, bookmarks, initial events, and going on from a revision without a hole."""

from __future__ import annotations

import asyncio
import json

import pytest

from integration.proxy.wire import PROTOBUF

FULL = True
PATHS = ("reverse", "direct")
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(240)]
MAPS = "/api/v1/namespaces/watching/configmaps"
END = "k8s.io/initial-events-end"


@pytest.fixture
async def changes(both):
    """A namespace, and a function that makes a change and returns its revision."""
    await both.direct("POST", "/api/v1/namespaces", body=b'{"metadata":{"name":"watching"}}', Content_Type="application/json")  # fmt: skip

    async def change(name: str, value: str) -> str:
        body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value}})
        answer = await both.direct(
            "PATCH", f"{MAPS}/{name}?fieldManager=t&force=true", body=body.encode(), Content_Type="application/apply-patch+yaml"
        )  # fmt: skip
        assert answer.status in (200, 201), answer.body
        return answer.json()["metadata"]["resourceVersion"]

    return change


async def read_events(response, count, kinds=("ADDED", "MODIFIED", "DELETED", "BOOKMARK")):
    events = []
    async with asyncio.timeout(30):
        while len(events) < count:
            event = json.loads(await response.content.readline())
            assert event["type"] in kinds, event
            events.append(event)
    return events


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        f"{PROTOBUF};stream=watch",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    ],
)
async def test_a_watch_from_a_revision_is_byte_for_byte_what_the_api_server_sends(both, changes, accept):
    start = await changes("first", "0")
    for i in range(20):
        await changes("first", f"{start}-{i}")
    target = f"{MAPS}?watch=true&resourceVersion={start}&timeoutSeconds=1&fieldSelector=metadata.name%3Dfirst"
    straight, through = await asyncio.gather(
        both.direct("GET", target, Accept=accept), both.hub("GET", target, Accept=accept)
    )
    assert through.comparable == straight.comparable
    assert through.body == straight.body
    assert through.body.count(f"{start}-".encode()) >= (20 if "as=" not in accept else 0)
    assert len(through.body) > 1000


async def test_initial_events_end_with_a_bookmark_and_the_watch_goes_on(both, changes):
    await changes("a", "1")
    await changes("b", "1")
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with both.stream(f"{MAPS}?{query}") as response:
        seen = []
        async with asyncio.timeout(30):
            while not seen or seen[-1]["type"] != "BOOKMARK":
                seen += await read_events(response, 1, ("ADDED", "BOOKMARK"))
        assert seen[-1]["object"]["metadata"]["annotations"] == {END: "true"}
        assert {"a", "b"} <= {e["object"]["metadata"]["name"] for e in seen[:-1]}
        await changes("a", "2" + seen[-1]["object"]["metadata"]["resourceVersion"])
        (event,) = await read_events(response, 1)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("MODIFIED", "a")


async def test_a_watch_that_was_cut_goes_on_from_its_last_revision_without_a_hole(both, changes):
    last = await changes("counter", "start")
    expected, seen = [], []
    for round_ in range(5):
        async with both.stream(f"{MAPS}?watch=true&resourceVersion={last}&fieldSelector=metadata.name%3Dcounter") as response:  # fmt: skip
            for i in range(3):
                # The last one of each round comes while nobody watches.
                expected.append(f"{last}-{round_}-{i}")
                await changes("counter", expected[-1])
            events = await read_events(response, 2 if round_ < 4 else len(expected) - len(seen), ("MODIFIED",))
            seen += [e["object"]["data"]["v"] for e in events]
            last = events[-1]["object"]["metadata"]["resourceVersion"]
            response.close()
    assert seen == expected[: len(seen)]
    assert len(seen) == len(expected)


async def test_a_watch_ends_when_the_client_said(both):
    answer = await both.hub(
        "GET", f"{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=0&fieldSelector=metadata.name%3Dno"
    )
    assert answer.status == 200
    assert answer.body == b""
