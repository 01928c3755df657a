"""Tokens over HTTP: read from the store when somebody asks, with no copy of them in the gateway."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from libs.common.resources.identity import Token, TokenSpec
from libs.common.resources.meta import ObjectMeta
from services.identity.tokens import Lifetimes, Tokens
from tests.apiserver.support import make_binding, make_principal, make_role, make_user
from tests.gateway.support import OURS, Hub, real_monotonic
from tests.gateway.test_api import Watching, names

PATH = f"{OURS}/tokens"


@pytest.fixture
async def hub(clock, tmp_path):
    """With the real identity's way of writing tokens, which is complete: nothing is left from older versions."""
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        running.identity = Tokens(running.stores["identity"], clock, Lifetimes())
        await running.identity.adoption.catch_up()
        yield running


@pytest.fixture
async def issued(hub):
    """Names by user: three of ann, two of bob, none of root."""
    return {
        who: sorted([(await hub.identity.issue(make_user(who), "api")).name for _ in range(count)])
        for who, count in (("ann", 3), ("bob", 2))
    }


async def older(hub, name, who):
    """As a version writes it that knows no records."""
    spec = TokenSpec(user=who, user_uid=f"uid-{who}", expires_at=hub.now() + timedelta(days=1))
    meta = ObjectMeta(name=name, uid=name, creation_timestamp=hub.now(), generation=1)
    await hub.put(Token(metadata=meta, spec=spec))


async def test_people_see_their_own_tokens_and_who_may_see_all_sees_them_by_user(hub, issued):
    assert names((await hub.call("GET", PATH, by="ann"))[1]) == issued["ann"]
    assert names((await hub.call("GET", PATH, by="bob"))[1]) == issued["bob"]
    assert names((await hub.call("GET", PATH))[1]) == [*issued["ann"], *issued["bob"]]
    assert hub.feed.entries == {}
    for name, status in ((issued["ann"][0], 200), (issued["bob"][0], 404), ("nowhere", 404), ("No Name", 404)):
        assert (await hub.call("GET", f"{PATH}/{name}", by="ann"))[0] == status


async def test_the_secrets_hash_is_in_no_answer(hub, issued):
    for path in (PATH, f"{PATH}/{issued['ann'][0]}", f"{PATH}?limit=2"):
        assert "ecretHash" not in json.dumps((await hub.call("GET", path))[1])


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 10])
async def test_pages_hold_each_token_once_although_tokens_are_used_and_made_between_them(hub, issued, limit):
    seen, more = [], ""
    while True:
        _, page = await hub.call("GET", f"{PATH}?limit={limit}{more}")
        seen += names(page)
        assert len(page["items"]) <= limit
        session = await hub.identity.issue(make_user("root"), "session")
        await hub.identity.extend(session.name)
        if "continue" not in page["metadata"]:
            break
        more = f"&continue={page['metadata']['continue']}"
    assert [name for name in seen if name in issued["ann"] + issued["bob"]] == [*issued["ann"], *issued["bob"]]
    assert len(seen) == len(set(seen))


async def test_selectors_narrow_and_never_widen(hub, issued):
    async def listed(selector, by="root"):
        return names((await hub.call("GET", f"{PATH}?fieldSelector={selector}", by=by))[1])

    assert await listed("spec.user%3Dbob") == issued["bob"]
    assert await listed("spec.user%3Dbob", by="ann") == []
    assert await listed("spec.user%3Dnobody") == []
    assert await listed("spec.user%21%3Dbob") == issued["ann"]
    assert await listed("spec.purpose%3Dlogin") == []
    assert await listed(f"metadata.name%3D{issued['bob'][1]}") == [issued["bob"][1]]
    assert await listed(f"metadata.name%3D{issued['bob'][1]}", by="ann") == []


async def test_a_role_for_some_names_shows_those_beside_ones_own(hub, issued):
    rule = {"verbs": ["get", "list", "watch"], "apiGroups": ["management.herdsman.dev"], "resources": ["tokens"]}
    await hub.put(make_role("helper", "global", [{**rule, "resourceNames": [issued["bob"][0], "gone"]}]))
    await hub.put(make_binding("ann", "helper", {"global": True}))
    expected = [*issued["ann"], issued["bob"][0]]
    assert names((await hub.call("GET", PATH, by="ann"))[1]) == expected
    _, page = await hub.call("GET", f"{PATH}?limit=3", by="ann")
    _, last = await hub.call("GET", f"{PATH}?limit=3&continue={page['metadata']['continue']}", by="ann")
    assert names(page) + names(last) == expected


async def test_a_list_is_a_table_or_metadata_where_that_is_asked_for_with_and_without_pages(hub, issued):
    for query in ("", "?limit=10"):
        accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        _, table = await hub.call("GET", f"{PATH}{query}", by="ann", headers=accept)
        assert (table["kind"], [row["cells"][0] for row in table["rows"]]) == ("Table", issued["ann"])
        assert table["columnDefinitions"][1]["name"] == "User"
        accept = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
        _, partial = await hub.call("GET", f"{PATH}{query}", by="ann", headers=accept)
        assert (partial["kind"], names(partial)) == ("PartialObjectMetadataList", issued["ann"])


async def test_nothing_is_kept_of_the_past_and_that_is_said(hub, issued):
    _, listed = await hub.call("GET", PATH)
    version = listed["metadata"]["resourceVersion"]
    exact = f"{PATH}?resourceVersionMatch=Exact&resourceVersion="
    assert (await hub.call("GET", f"{exact}{version}"))[0] == 200
    await older(hub, "later", "ann")
    status, document = await hub.call("GET", f"{exact}{version}")
    assert (status, document["reason"]) == (410, "Expired")
    assert (await hub.call("GET", f"{exact}0"))[0] == 400
    assert (await hub.call("GET", f"{PATH}?resourceVersion={version}"))[0] == 200
    status, document = await hub.call("GET", f"{PATH}?resourceVersion=99999")
    assert (status, document["reason"]) == (504, "Timeout")
    for bad in ("x", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJ4In0"):
        assert (await hub.call("GET", f"{PATH}?limit=1&continue={bad}"))[0] == 400


async def test_a_watch_tells_of_ones_own_tokens_what_came_changed_and_went(hub, issued):
    _, listed = await hub.call("GET", PATH, by="ann")
    version = listed["metadata"]["resourceVersion"]
    async with hub.request("GET", f"{PATH}?watch=true&resourceVersion={version}", by="ann") as response:
        watch = Watching(response)
        await hub.identity.issue(make_user("bob"), "session")
        mine = await hub.identity.issue(make_user("ann"), "session")
        hub.now.forward(60)
        await hub.identity.extend(mine.name)
        await hub.identity.revoke(mine.name)
        events = await watch.take(3)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", mine.name), ("MODIFIED", mine.name), ("DELETED", mine.name)
    ]  # fmt: skip
    assert events[2]["object"]["spec"]["user"] == "ann"
    assert "private" not in events[0]["object"]


async def test_a_watch_from_nothing_begins_with_what_is_there(hub, issued):
    asked = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with hub.request("GET", f"{PATH}?{asked}", by="bob") as response:
        watch = Watching(response)
        events = await watch.take(3)
        assert [e["type"] for e in events] == ["ADDED", "ADDED", "BOOKMARK"]
        assert [e["object"]["metadata"]["name"] for e in events[:2]] == issued["bob"]
        later = await hub.identity.issue(make_user("bob"), "api")
        assert (await watch.next())["object"]["metadata"]["name"] == later.name


async def test_after_a_gap_watches_are_told_to_list_again(hub, issued):
    _, listed = await hub.call("GET", PATH, by="ann")
    version = listed["metadata"]["resourceVersion"]
    asked = f"{PATH}?watch=true&resourceVersion={version}"
    async with hub.request("GET", asked, by="ann") as response:
        await hub.identity.issue(make_user("bob"), "api")
        hub.stores["identity"].interrupt()
        assert (await Watching(response).next())["object"]["code"] == 410
    async with hub.request("GET", asked, by="ann") as response:
        assert (await Watching(response).next())["object"]["code"] == 410


async def test_a_token_that_was_revoked_in_a_gap_ends_its_watches_and_others_go_on(hub, issued, eventually):
    gone, kept = issued["ann"][:2]
    path = f"{OURS}/clusters?watch=true"
    async with (
        hub.request("GET", path, by=make_principal("ann", token=gone)) as ending,
        hub.request("GET", path, by=make_principal("ann", token=kept)) as staying,
    ):
        first, second = Watching(ending), Watching(staying)
        await first.take(1)
        await second.take(1)
        hub.stores["identity"].interrupt()
        await hub.identity.revoke(gone)
        assert (await first.next())["object"]["code"] == 401
        with pytest.raises(TimeoutError):
            await second.next(timeout_s=0.1)
    await eventually(lambda: not hub.feed._followed)


async def test_the_page_learns_when_its_session_ends(hub):
    session = await hub.identity.issue(make_user("ann"), "session")
    _, shown = await hub.call("GET", "/v1/session", by=make_principal("ann", token=session.name))
    assert shown["name"] == session.name
    assert shown["expires_at"] == session.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (await hub.call("GET", "/v1/session", by="ann"))[1]["expires_at"] == ""


async def test_a_collection_of_tokens_is_deleted_as_far_as_the_caller_sees_it(hub, issued):
    status, gone = await hub.call("DELETE", f"{PATH}?fieldSelector=spec.user%3Dbob")
    assert (status, sorted(names(gone))) == (200, issued["bob"])
    assert names((await hub.call("GET", PATH))[1]) == issued["ann"]
    assert (await hub.call("DELETE", PATH, by="bob"))[0] == 403
    assert names((await hub.call("GET", PATH))[1]) == issued["ann"]


async def test_before_an_older_versions_tokens_are_adopted_lists_look_through_all_of_them(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as hub:
        for number in range(3):
            await older(hub, f"a{number}", "ann")
            await older(hub, f"b{number}", "bob")
        assert names((await hub.call("GET", f"{PATH}?limit=2", by="ann"))[1]) == ["a0", "a1", "a2"]
        assert len(names((await hub.call("GET", PATH))[1])) == 6
        await Tokens(hub.stores["identity"], clock, Lifetimes()).adoption.catch_up()
        _, page = await hub.call("GET", f"{PATH}?limit=2", by="ann")
        assert names(page) == ["a0", "a1"]
        assert "continue" in page["metadata"]
