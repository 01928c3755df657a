"""What a member of projects may see of a cluster's namespaces: which names, the request for just those, and where a watch may end."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import errors
from libs.common.access.grants import compile_grants
from libs.common.access.principal import Principal
from libs.common.apiserver.selectors import parse_labels
from libs.common.relay import framing
from libs.common.relay.head import parse_request, parse_response
from libs.common.relay.payload import Payload
from libs.common.resources import codec
from libs.common.resources.access import (  # fmt: skip
    BindingScope,
    PolicyRule,
    RoleTemplate,
    RoleTemplateBinding,
    RoleTemplateBindingSpec,
    RoleTemplateSpec,
)
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import User
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.projects import ObservedNamespace, Project, ProjectNamespace, ProjectSpec, ProjectStatus
from libs.common.resources.registry import BY_MODEL
from libs.common.store.informer import Informer
from libs.common.store.memory import MemoryStore
from services.auth_proxy.namespace_view import NAME_LABEL, concerns, find_names, is_watch, narrow, narrow_accept
from services.auth_proxy.namespace_watch import LAST_FRAME, LAST_LINE, WatchTap
from services.auth_proxy.places import Places

NOW = datetime(2026, 1, 1, tzinfo=UTC)
labels = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)


def head(method: str, path: str = "/x") -> object:
    return parse_request(f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("method", "target", "verb"),
    [
        ("GET", "/api/v1/namespaces", "list"),
        ("GET", "/api/v1/namespaces?limit=500", "list"),
        ("GET", "/api/v1/namespaces?watch=false", "list"),
        ("GET", "/api/v1/namespaces?watch=0", "list"),
        ("GET", "/api/v1/namespaces?watch=true", "watch"),
        ("GET", "/api/v1/namespaces?w%61tch=1", "watch"),
        ("GET", "/api/v1/namespaces?watch=", "watch"),
        ("GET", "/api/v1/namespaces?watch=f", "watch"),
        ("POST", "/api/v1/namespaces", "create"),
        ("DELETE", "/api/v1/namespaces/a", ""),
        ("HEAD", "/api/v1/namespaces", ""),
        ("DELETE", "/api/v1/namespaces", ""),
        ("PATCH", "/api/v1/namespaces/a", ""),
        ("GET", "/api/v1/namespaces/a", "get"),
        ("GET", "/api/v1/namespaces/a?watch=1", ""),
        ("GET", "/api/v1/namespaces/", ""),
        ("DELETE", "/api/v1/namespaces/a/status", ""),
        ("DELETE", "/api/v1/namespaces/%61", ""),
        ("DELETE", "/api/v1/namespaces/A", ""),
        ("GET", "/api/v1/namespacesx", ""),
        ("GET", "/api/v1/%6eamespaces", ""),
        ("GET", "/api/v1/watch/namespaces", ""),
    ],
)  # fmt: skip
def test_only_the_very_calls_that_clients_make_are_looked_at(method: str, target: str, verb: str) -> None:
    assert concerns(head(method), target.encode()) == verb


@given(st.frozensets(labels, max_size=6), labels, st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_asked_only_the_names_given_can_fit(
    names: frozenset[str], stranger: str, own: str, fields: str
) -> None:
    query = f"labelSelector={quote(own, safe='')}&fieldSelector={quote(fields, safe='')}&limit=5"
    narrowed = parse_qs(narrow(f"/api/v1/namespaces?{query}".encode(), names).partition(b"?")[2].decode())
    (selector,) = narrowed["labelSelector"]
    first, _, rest = selector.partition(")")
    assert rest in ("", f",{own}"), "what the client says comes behind ours, and is ANDed"
    (ours,) = parse_labels(first + ")")
    assert ours.key == NAME_LABEL
    assert not ours.is_met(stranger) or stranger in names
    assert narrowed["limit"] == ["5"]
    assert narrowed.get("fieldSelector", [""]) == [fields]


@pytest.mark.parametrize(
    "query", ["a=1&a=2", "labelSelector=x&label%53elector=y", "a=%ff", "a;b=1", "a", "a=1&&b=2", "watch=%zz", "a=%3"]
)
def test_a_query_that_two_readers_could_read_differently_is_refused(query: str) -> None:
    with pytest.raises(errors.BadRequest):
        narrow(f"/api/v1/namespaces?{query}".encode(), ["a"])


def test_who_asks_for_one_by_name_gets_a_short_question() -> None:
    many = [f"n{i}" for i in range(2000)]
    for target, ours in (("metadata.name%3Dn7", "n7"), ("metadata.name%3D%3Dn7", "n7"), ("metadata.name%3Dbank", "")):
        narrowed = narrow(f"/api/v1/namespaces?fieldSelector={target}".encode(), many)
        assert f"({ours})".encode() in narrowed
        assert len(narrowed) < 200
    assert len(narrow(b"/api/v1/namespaces?fieldSelector=metadata.name!%3Dn7", many)) > 2000


def test_pretty_is_dropped_from_watches_alone() -> None:
    assert b"pretty" not in narrow(b"/api/v1/namespaces?watch=1&pretty=true", ["a"])
    assert b"pretty" in narrow(b"/api/v1/namespaces?pretty=true", ["a"])


@pytest.mark.parametrize(
    ("accept", "kept"),
    [
        ("application/json", "application/json"), ("*/*", "application/json"), ("", ""),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
        ("application/vnd.kubernetes.protobuf, */*", "application/vnd.kubernetes.protobuf,application/json"),
        ("application/cbor-seq,application/json", "application/json"),
    ],
)  # fmt: skip
def test_watches_are_in_forms_whose_events_can_be_told_apart(accept: str, kept: str) -> None:
    assert narrow_accept(accept, watch=True) == kept
    with pytest.raises(errors.NotAcceptable):
        narrow_accept("application/cbor-seq", watch=True)


# ── names ──


def meta(name: str, **more: object) -> ObjectMeta:
    return ObjectMeta(name=name, uid=f"uid-{name}", creation_timestamp=NOW, **more)


def make_role(name: str, *verbs: str, names: list[str] | None = None, scope: str = "project") -> RoleTemplate:
    rule = PolicyRule(verbs=list(verbs), api_groups=[""], resources=["namespaces"], resource_names=names or [])
    return RoleTemplate(metadata=meta(name), spec=RoleTemplateSpec(scope=scope, rules=[rule]))


def make_project(name: str, *entries: ProjectNamespace, foreign: str = "") -> Project:
    seen = [ObservedNamespace(cluster="prod", namespace=foreign, uid="x", foreign=True)] if foreign else []
    return Project(
        metadata=meta(name), spec=ProjectSpec(namespaces=list(entries)), status=ProjectStatus(namespaces=seen)
    )


def entry(namespace: str, cluster: str = "prod", uid: str = "", create: bool = False) -> ProjectNamespace:
    return ProjectNamespace(cluster=cluster, namespace=namespace, cluster_uid=uid, create=create)


async def seen_by(
    made: list[Project], roles: list[RoleTemplate], held: dict[str, str], verb: str = "list", **scope: object
):
    """The names for ada, who holds in each project of `held` the role that it names."""
    store = MemoryStore("project")
    for project in made:
        await store.create(BY_MODEL[Project].key(project.name), codec.encode(project))
    informer = Informer(store, "projects")
    task = asyncio.create_task(informer.run())
    try:
        await informer.synced.wait()
        places = Places(informer)
        user = User(metadata=meta("ada"))
        bindings = [
            RoleTemplateBinding(
                metadata=meta(f"b-{project}"),
                spec=RoleTemplateBindingSpec(
                    principal="local:user:uid-ada", user="ada", role=role, scope=BindingScope(project=project, project_uid=f"uid-{project}")
                ),
            )
            for project, role in held.items()
        ]  # fmt: skip
        grants = compile_grants(roles, bindings, [Cluster(metadata=meta("prod"))], [user], NOW, made)
        ada = Principal(user="ada", user_uid="uid-ada", principal_id="local:user:uid-ada", **scope)
        return find_names(grants, places, ada, "prod", "uid-prod", verb)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_names_are_those_of_the_projects_in_which_a_role_gives_the_verb() -> None:
    projects = [
        make_project("web", entry("a"), entry("b"), entry("far", "other")),
        make_project("bank", entry("vault")),
    ]
    roles = [make_role("sees", "list"), make_role("one", "list", names=["b", "vault"]), make_role("pods", "get")]
    assert await seen_by(projects, roles, {"web": "sees"}) == {"a", "b"}
    assert await seen_by(projects, roles, {"web": "one"}) == {"b"}
    assert await seen_by(projects, roles, {"web": "sees", "bank": "sees"}) == {"a", "b", "vault"}
    assert await seen_by(projects, roles, {"web": "pods"}) is None
    assert await seen_by(projects, roles, {"web": "sees"}, "watch") is None
    assert await seen_by(projects, roles, {}) is None
    both = {"web": "sees", "bank": "sees"}
    assert await seen_by(projects, roles, both, projects=["bank"]) == {"vault"}
    assert await seen_by(projects, roles, both, clusters=["other"]) is None


async def test_what_a_projects_namespaces_use_is_told_to_nobody() -> None:
    store, kind = MemoryStore("project"), BY_MODEL[Project]
    made = make_project("web", entry("a"))
    revision = await store.create(kind.key("web"), codec.encode(made))
    informer = Informer(store, "projects")
    task = asyncio.create_task(informer.run())
    try:
        await informer.synced.wait()
        places, told = Places(informer), []
        places.on_change.append(lambda: told.append(places.version))
        made.status.namespaces = [ObservedNamespace(cluster="prod", namespace="a", used={"pods": "1"})]
        revision = await store.update(kind.key("web"), codec.encode(made), revision)
        await informer.wait_revision(revision, timeout_s=5)
        assert told == []
        made.spec.namespaces.append(entry("b"))
        revision = await store.update(kind.key("web"), codec.encode(made), revision)
        await informer.wait_revision(revision, timeout_s=5)
        assert len(told) == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("value", [b"", msgpack.packb({"v": 1}), msgpack.packb({"v": 1, "object": {"metadata": {}}})])
async def test_a_project_that_cannot_be_read_any_more_shows_nothing(value: bytes) -> None:
    store, kind = MemoryStore("project"), BY_MODEL[Project]
    revision = await store.create(kind.key("web"), codec.encode(make_project("web", entry("a"))))
    informer = Informer(store, "projects")
    task = asyncio.create_task(informer.run())
    try:
        await informer.synced.wait()
        places = Places(informer)
        assert places.find("web", "uid-web", "prod", "uid-prod") == {"a"}
        await informer.wait_revision(await store.update(kind.key("web"), value, revision), timeout_s=5)
        assert places.find("web", "uid-web", "prod", "uid-prod") == set()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_not_the_projects_is_not_shown() -> None:
    roles = [make_role("sees", "list")]
    made = make_project(
        "web", entry("a", create=True), entry("b", uid="an-earlier-cluster"), entry("c", uid="uid-prod"), foreign="a"
    )
    assert await seen_by([made], roles, {"web": "sees"}) == {"c"}
    older = make_project("aaa", entry("c"))
    assert await seen_by([made, older], roles, {"web": "sees"}) == set(), "of two with one namespace the older has it"
    older = make_project("aaa", entry("c", uid="an-earlier-cluster"))
    assert await seen_by([made, older], roles, {"web": "sees"}) == {"c"}, "unless it came with an earlier cluster"


# ── the end of a watch ──

events = st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"_")), max_size=8)


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces if p)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` in pieces of these sizes, over and over."""
    pieces, position, turn = [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[position : position + size])
        position, turn = position + size, turn + 1
    return pieces


@given(events, st.booleans(), st.lists(st.integers(1, 9), min_size=1), st.lists(st.integers(1, 9), min_size=1))
def test_a_watch_may_end_exactly_where_its_client_has_whole_events(
    bodies: list[bytes], binary: bool, chunks: list[int], reads: list[int]
) -> None:
    """Chunks and reads are torn anywhere; at each point the tap says what a reader of all bytes so far would."""
    framed = [len(b).to_bytes(4, "big") + b for b in bodies] if binary else [b + b"\n" for b in bodies]
    whole = {0}
    for event in framed:
        whole.add(max(whole) + len(event))
    media = "application/vnd.kubernetes.protobuf;stream=watch" if binary else "application/json"
    tap = WatchTap(None)
    tap.response_head(
        parse_response(f"HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    )
    follow, payload, had = framing.Chunked(), Payload(), 0
    for read in cut(chunked(cut(b"".join(framed), chunks)), reads):
        follow.scan(read)
        tap.response_bytes(read)
        had += len(payload.feed(read))
        assert bool(tap.last) == (had in whole)
        if tap.last:
            assert tap.last == (LAST_FRAME if binary else LAST_LINE)
    assert had == sum(map(len, framed))


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.lists(st.integers(1, 9), min_size=1), st.booleans())
def test_the_payload_is_what_was_chunked(pieces: list[bytes], reads: list[int], trailer: bool) -> None:
    payload = Payload()
    wire = chunked(pieces) + b"0\r\n" + (b"x-sum: abc\r\n" if trailer else b"") + b"\r\n"
    assert b"".join(payload.feed(read) for read in cut(wire, reads)) == b"".join(pieces)


def test_the_last_event_is_what_an_api_server_says_of_a_watch_that_is_too_old() -> None:
    event = json.loads(LAST_LINE)
    assert event["type"] == "ERROR"
    assert (event["object"]["kind"], event["object"]["code"], event["object"]["reason"]) == ("Status", 410, "Expired")
    assert int.from_bytes(LAST_FRAME[:4], "big") == len(LAST_FRAME) - 4


@pytest.mark.parametrize(
    "line", ["Content-Type: application/cbor-seq", "Content-Type: application/json\r\nContent-Encoding: gzip"]
)
def test_a_stream_that_can_not_be_read_is_never_ended_politely(line: str) -> None:
    tap = WatchTap(None)
    tap.response_head(parse_response(f"HTTP/1.1 200 OK\r\n{line}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()))
    tap.response_bytes(b"2\r\n{\n\r\n")
    assert tap.last == b""


def test_a_watch_is_one_for_whoever_reads_its_query_as_an_api_server_does() -> None:
    assert [is_watch(f"/x?{q}".encode()) for q in ("watch=FALSE", "Watch=1", "", "watch", "a=watch")] == [False, False, False, True, False]  # fmt: skip
