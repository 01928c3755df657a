"""Members of projects see the namespaces of their projects and no others, whatever they ask; by real kubectl and by every trick of the API.

The cluster is real, and what its agent would apply is applied to it; the projects are the front door's own copies.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from integration.kubelab.kubectl import Answer, kubectl
from integration.proxy.members import apply, bind, make_namespaces, project, put_member, put_project, role
from integration.proxy.tests.conftest import Way, write_kubeconfig
from libs.common.resources.access import PolicyRule, RoleTemplateBinding
from libs.common.resources.projects import ObservedNamespace

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(120)]
PATHS = ("reverse", "direct")
PREFIX = "/k8s/clusters/prod"
OWN, STRANGE = ("mine-1", "mine-2"), ("bank", "mine-not", "zebra")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PROTOBUF = "application/vnd.kubernetes.protobuf"


class Member:
    def __init__(self, way: Way, token: str, kubeconfig: Path, session: aiohttp.ClientSession) -> None:
        self.way = way
        self.token = token
        self.kubeconfig = kubeconfig
        self.session = session

    async def kubectl(self, *arguments: str, **more) -> Answer:
        return await kubectl(self.kubeconfig, *arguments, **more)

    async def get(self, path: str, accept: str = "application/json", method: str = "GET", **more) -> tuple[int, bytes]:
        from yarl import URL

        url = URL(f"https://localhost:{self.way.door.port}{PREFIX}{path}", encoded=True)
        headers = {"Authorization": f"Bearer {self.token}", "Accept": accept, **more}
        async with self.session.request(method, url, headers=headers) as answer:
            return answer.status, await answer.read()

    @asynccontextmanager
    async def watch(
        self, query: str = "watch=1", accept: str = "application/json"
    ) -> AsyncIterator[aiohttp.StreamReader]:
        url = f"https://localhost:{self.way.door.port}{PREFIX}/api/v1/namespaces?{query}"
        headers = {"Authorization": f"Bearer {self.token}", "Accept": accept}
        async with self.session.get(url, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            yield answer.content


async def next_event(stream: aiohttp.StreamReader) -> dict:
    async with asyncio.timeout(10):
        return json.loads(await stream.readline())


@pytest.fixture
async def member(way: Way, tmp_path: Path) -> AsyncIterator[Member]:
    """gina, who sees the project `shop`."""
    await make_namespaces(way.cluster, *OWN, *STRANGE)
    await put_project(way.door, way.cluster, "shop", *OWN)
    token = await put_member(way.door, "gina", "shop")
    connector = aiohttp.TCPConnector(ssl=way.door.client_tls())
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Member(way, token, write_kubeconfig(tmp_path / "gina", way.door, token), session)


def names_of(body: bytes) -> list[str]:
    found = json.loads(body)
    return [item["metadata"]["name"] for item in found["items"]]


def assert_nothing_strange(body: bytes) -> None:
    """Neither in clear nor in base64, at any of its three alignments."""
    for name in (*STRANGE, "kube-system", "default"):
        assert name.encode() not in body, body
        for shift in range(3):
            # The inner letters alone: those at the ends depend on what stands beside them.
            encoded = base64.b64encode(b"x" * shift + name.encode())[4 if shift else 0 : -4]
            assert len(encoded) < 6 or encoded not in body, (name, body)


async def test_kubectl_shows_the_namespaces_of_the_project_in_every_form(member):
    for output in ("", "wide", "json", "yaml", "name"):
        answer = await member.kubectl("get", "namespaces", *(("-o", output) if output else ()))
        assert answer.code == 0, answer.err
        assert all(name in answer.out for name in OWN)
        assert_nothing_strange(answer.out.encode())
    assert (await member.kubectl("get", "ns", "mine-1")).code == 0
    for name in ("bank", "no-such"):
        assert f'namespaces "{name}" not found' in (await member.kubectl("get", "ns", name)).err
    labelled = await member.kubectl("get", "ns", "-l", "kubernetes.io/metadata.name!=mine-1", "-o", "name")
    assert labelled.out.split() == ["namespace/mine-2"]
    assert (await member.kubectl("get", "ns", "-o", "name", "--chunk-size=1")).out.split() == [f"namespace/{n}" for n in OWN]  # fmt: skip
    assert (await member.kubectl("auth", "can-i", "list", "namespaces")).out.strip() == "no"


async def test_who_may_list_all_gets_what_the_cluster_says_byte_for_byte(way, member):
    member.token = way.token
    _, through = await member.get("/api/v1/namespaces?limit=500")
    direct = await kubectl(way.cluster.kubeconfig, "get", "--raw", "/api/v1/namespaces?limit=500")
    assert json.loads(through)["items"] == json.loads(direct.out)["items"]
    assert {*OWN, *STRANGE, "kube-system"} <= set(names_of(through))


async def test_who_was_bound_in_the_cluster_itself_sees_all(way, member):
    made = await kubectl(way.cluster.kubeconfig, "create", "clusterrolebinding", "by-hand", "--clusterrole=view", "--user=herdsman:gina")  # fmt: skip
    assert made.code == 0, made.err
    try:
        _, body = await member.get("/api/v1/namespaces")
        assert {*OWN, *STRANGE} <= set(names_of(body))
    finally:
        await kubectl(way.cluster.kubeconfig, "delete", "clusterrolebinding", "by-hand")


TRICKS = {
    "a field selector of a stranger's name": "?fieldSelector=metadata.name%3Dbank",
    "a field selector that excludes her own": "?fieldSelector=metadata.name!%3Dmine-1",
    "the short field selector": "?fieldSelector=name%3Dbank",
    "a label selector for strangers": "?labelSelector=kubernetes.io/metadata.name%20in%20(bank,zebra)",
    "a label selector for what is not hers": "?labelSelector=kubernetes.io/metadata.name%20notin%20(mine-1)",
    "the same parameter twice": "?labelSelector=a&labelSelector=b",
    "an empty label selector": "?labelSelector=",
    "a label selector that begins with a comma": "?labelSelector=,",
    "a label selector that closes a parenthesis": "?labelSelector=)%2Cx",
    "a label selector that opens one": "?labelSelector=a%20in%20(b",
    "an encoded name of the parameter": "?label%53elector=x",
    "another case of the parameter": "?LabelSelector=kubernetes.io/metadata.name%3Dbank",
    "a semicolon as separator": "?limit=1;labelSelector=x",
    "limit 0": "?limit=0",
    "limit 1": "?limit=1",
    "an old list": "?resourceVersion=0",
    "an exact old list": "?resourceVersion=1&resourceVersionMatch=Exact",
    "pretty": "?pretty=true",
    "a timeout": "?timeout=5s&timeoutSeconds=2",
    "the watch path": "/../watch/namespaces",
    "a trailing slash": "/",
    "a name path with a stranger's name": "/bank",
    "a watch on a stranger's name path": "/bank?watch=1&timeoutSeconds=2",
    "the status of a stranger's": "/bank/status",
    "a watch in another spelling": "?watch=TRUE&timeoutSeconds=2",
    "a watch by an empty value": "?watch=&timeoutSeconds=2",
    "a watch from long ago": "?watch=1&resourceVersion=1&timeoutSeconds=2",
    "a watch from any time": "?watch=1&resourceVersion=0&timeoutSeconds=2",
    "a watch that begins with what is there": "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=2",
    "a watch of a stranger's name": "?watch=1&fieldSelector=metadata.name%3Dbank&resourceVersion=0&timeoutSeconds=2",
    "shards": "?shardSelector=shardRange(object.metadata.uid,'0x0','0xff')",
}  # fmt: skip
FORMS = {
    "JSON": "application/json", "a table": TABLE, "protobuf": PROTOBUF, "YAML": "application/yaml", "CBOR": "application/cbor",
    "metadata": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "metadata as protobuf": f"{PROTOBUF};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "anything": "*/*",
    "a stream": "application/json;stream=watch",
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
async def test_no_query_shows_a_strangers_namespace(member, trick):
    for form, accept in FORMS.items():
        status, body = await member.get(f"/api/v1/namespaces{TRICKS[trick]}", accept)
        assert status in (200, 400, 403, 404, 406, 410, 422), (form, status, body)
        if status == 200:
            assert_nothing_strange(body)
        else:
            # A refusal says back what was asked, and nothing else.
            assert b"zebra" not in body, (form, body)


@pytest.mark.parametrize("include", ["None", "Metadata", "Object"])
async def test_no_table_shows_a_strangers_namespace(member, include):
    status, body = await member.get(f"/api/v1/namespaces?includeObject={include}", TABLE)
    assert status == 200
    assert [row["cells"][0] for row in json.loads(body)["rows"]] == list(OWN)
    assert_nothing_strange(body)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/watch/namespaces", "/api/v1/watch/namespaces/bank", "/api/v1/Namespaces", "/API/v1/namespaces", "/api/v1/%6eamespaces",
        "/api/v1/namespaces%2f", "/api/v1/namespaces%3fwatch=1", "/api//v1/namespaces", "/api/v1/namespaces//", "/apis//v1/namespaces",
    ],
)  # fmt: skip
async def test_no_other_spelling_of_the_path_is_filtered_or_allowed(member, path):
    status, body = await member.get(path)
    assert status in (301, 400, 403, 404), (status, body)
    assert b"zebra" not in body


async def test_head_tells_no_length(member):
    status, body = await member.get("/api/v1/namespaces", method="HEAD")
    assert (status, body) == (403, b"")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_other_verbs_on_the_collection_stay_the_clusters_business(member, method):
    status, body = await member.get("/api/v1/namespaces?labelSelector=x", method=method)
    assert status in (400, 403, 405, 415), (status, body)
    assert_nothing_strange(body)


async def test_continue_tokens_of_somebody_who_sees_all_show_only_her_own(way, member):
    mine = member.token
    member.token = way.token
    _, body = await member.get("/api/v1/namespaces?limit=1")
    theirs = json.loads(body)["metadata"]["continue"]
    member.token = mine
    for query in (f"limit=500&continue={theirs}", f"continue={theirs}", f"limit=1&continue={theirs}"):
        status, body = await member.get(f"/api/v1/namespaces?{query}")
        assert status == 200
        assert set(names_of(body)) <= set(OWN)
        assert_nothing_strange(body)
    forged = base64.urlsafe_b64encode(b'{"v":"meta.k8s.io/v1","rv":-1,"start":"bank\\u0000"}').decode().rstrip("=")
    status, body = await member.get(f"/api/v1/namespaces?limit=500&continue={forged}")
    assert status in (200, 400, 410)
    assert_nothing_strange(body)


async def test_pages_hold_her_own_names_and_tell_no_number_of_others(member):
    seen, token = [], ""
    for _ in range(10):
        status, body = await member.get(f"/api/v1/namespaces?limit=1&continue={token}")
        assert status == 200
        listed = json.loads(body)
        assert "remainingItemCount" not in listed["metadata"]
        assert_nothing_strange(body)
        start = listed["metadata"].get("continue", "")
        if start:
            assert_nothing_strange(base64.urlsafe_b64decode(start + "=" * (-len(start) % 4)))
        seen += names_of(body)
        token = start
        if not token:
            break
    assert seen == list(OWN)


async def test_gzip_is_the_clusters_own(way, member):
    await make_namespaces(way.cluster, *(f"many-{n}" for n in range(40)))
    big = {"metadata": {"annotations": {"big": "x" * 8000}}}
    for n in range(40):
        await kubectl(way.cluster.kubeconfig, "patch", "namespace", f"many-{n}", "--type=merge", "-p", json.dumps(big))
    await put_project(way.door, way.cluster, "many", *(f"many-{n}" for n in range(40)))
    await bind(way.door, "gina", "many")
    async with member.session.get(
        f"https://localhost:{way.door.port}{PREFIX}/api/v1/namespaces",
        headers={"Authorization": f"Bearer {member.token}", "Accept-Encoding": "gzip"},
    ) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(names_of(await answer.read())) == 42


async def test_a_watch_hears_of_her_own_namespaces_alone_and_goes_on_by_bookmarks(way, member):
    _, body = await member.get("/api/v1/namespaces")
    version = json.loads(body)["metadata"]["resourceVersion"]
    async with member.watch(f"watch=1&resourceVersion={version}&allowWatchBookmarks=true") as stream:
        for name in ("bank", "mine-2"):
            await kubectl(way.cluster.kubeconfig, "annotate", "namespace", name, f"now={version}", "--overwrite")
        event = await next_event(stream)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("MODIFIED", "mine-2")


@pytest.mark.parametrize("accept", ["application/json", PROTOBUF, TABLE])
async def test_a_watch_ends_with_410_when_a_namespace_joins_and_when_one_leaves(way, member, accept):
    for namespaces in ((*OWN, "zebra"), OWN):
        async with member.watch("watch=1&resourceVersion=0", accept) as stream:
            await asyncio.sleep(0.3)
            await put_project(way.door, way.cluster, "shop", *namespaces)
            async with asyncio.timeout(5):
                body = await stream.read()
            assert b"ERROR" in body
            assert b"Expired" in body
            assert b"list them again" in body
            if accept != PROTOBUF:
                assert json.loads(body.splitlines()[-1])["object"]["code"] == 410
    # And what she lists then is what there is now.
    _, body = await member.get("/api/v1/namespaces")
    assert names_of(body) == list(OWN)


async def test_a_watch_ends_when_the_role_goes_and_the_next_list_is_refused(way, member):
    async with member.watch("watch=1&resourceVersion=0") as stream:
        await asyncio.sleep(0.3)
        await way.door.remove(RoleTemplateBinding, "gina-shop-sees")
        async with asyncio.timeout(5):
            body = await stream.read()
    assert b'"reason":"Expired"' in body
    status, body = await member.get("/api/v1/namespaces")
    assert status == 403
    assert b"no role in" in body


async def test_a_namespace_that_joins_by_a_second_project_is_seen_by_kubectl_at_once(way, member):
    await put_project(way.door, way.cluster, "more", "bank")
    assert "bank" not in (await member.kubectl("get", "ns", "-o", "name")).out
    await bind(way.door, "gina", "more")
    assert (await member.kubectl("get", "ns", "-o", "name")).out.split() == ["namespace/bank", *(f"namespace/{n}" for n in OWN)]  # fmt: skip
    await way.door.remove(RoleTemplateBinding, "gina-more-sees")
    assert "bank" not in (await member.kubectl("get", "ns", "-o", "name")).out


async def test_a_namespace_deleted_and_made_again_by_a_stranger_is_not_the_projects(way, member):
    """One that the hub was to make, and that its agent found to be somebody else's; what was adopted by its name stays the project's."""
    made = project("shop", OWN, way.door.uids["project/shop"])
    made.spec.namespaces[0].create = True
    made.status.namespaces = [ObservedNamespace(cluster="prod", namespace="mine-1", uid="another", foreign=True)]
    await way.door.put(made)
    status, body = await member.get("/api/v1/namespaces")
    assert status == 200
    assert names_of(body) == ["mine-2"]


async def test_a_namespace_of_an_earlier_cluster_of_the_name_is_not_shown(way, member):
    made = project("shop", OWN, way.door.uids["project/shop"])
    made.spec.namespaces[0].cluster_uid = "an-earlier-one"
    await way.door.put(made)
    _, body = await member.get("/api/v1/namespaces")
    assert names_of(body) == ["mine-2"]


async def test_a_project_made_again_under_the_name_shows_its_old_members_nothing(way, member):
    way.door.uids["project/shop"] = "another-uid"
    await put_project(way.door, way.cluster, "shop", *OWN)
    status, body = await member.get("/api/v1/namespaces")
    assert status == 403, body


async def test_a_project_role_without_the_right_to_list_lists_nothing(way, member):
    pods = role("pods-only", [PolicyRule(verbs=["*"], api_groups=[""], resources=["pods"])])
    await way.door.put(pods)
    await apply(way.cluster, [project("shop", OWN, way.door.uids["project/shop"])], [role(), pods])
    member.token = await put_member(way.door, "paul", "shop", "pods-only")
    status, body = await member.get("/api/v1/namespaces")
    assert (status, b"forbidden" in body) == (403, True)


async def test_a_role_for_one_named_namespace_lists_that_one(way, member):
    one = role("one", [PolicyRule(verbs=["list"], api_groups=[""], resources=["namespaces"], resource_names=["mine-2", "bank"])])  # fmt: skip
    await way.door.put(one)
    member.token = await put_member(way.door, "olga", "shop", "one")
    _, body = await member.get("/api/v1/namespaces")
    assert names_of(body) == ["mine-2"]


async def test_the_hubs_own_group_can_not_be_wished_for(way):
    """Not even by who may impersonate anybody."""
    answer = await way.kubectl("get", "--raw", "/api/v1/namespaces", "--as=herdsman:x", "--as-group=herdsman:hub:namespaces")  # fmt: skip
    assert answer.code != 0
    assert "the hub's own" in answer.err


async def test_as_somebody_else_the_cluster_alone_answers(member):
    answer = await member.kubectl("get", "--raw", "/api/v1/namespaces", "--as=herdsman:x")
    assert answer.code != 0
    assert "cannot impersonate" in answer.err


async def test_the_audit_event_is_the_callers(way, member):
    await member.get("/api/v1/namespaces?limit=7")
    events = await way.door.events(1)
    event = next(e for e in reversed(events) if "limit=7" in e["requestURI"])
    assert event["user"]["username"] in ("gina", "herdsman:gina")
    assert event["verb"] == "list"
    assert "labelSelector" not in event["requestURI"]
    assert not any("selfsubjectaccessreviews" in e["requestURI"] for e in events)


async def test_five_hundred_namespaces_are_one_question(way, member):
    names = [f"a-rather-long-name-of-a-namespace-{n}" for n in range(500)]
    await way.door.put(project("shop", [*OWN, *names], way.door.uids["project/shop"]))
    status, body = await member.get("/api/v1/namespaces")
    assert status == 200
    assert names_of(body) == list(OWN)
