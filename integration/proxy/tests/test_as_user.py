"""The real kubectl with --as, in front of a real API server: through an agent and directly, with the rights of the import manifest."""

from __future__ import annotations

import asyncio
import json

import pytest

from integration.proxy.tests.wishes import agent_token, as_admin, helpers_way, whoami

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(240)]
PREFIX = "/k8s/clusters/prod"
# Raw, because kubectl shows "unknown" for whatever stops its discovery, also in front of a bare API server.
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


PATHS = ("agent", "direct")


@pytest.fixture(scope="module")
def account(plain_cluster):
    return asyncio.run(agent_token(plain_cluster))


@pytest.fixture
async def way(cluster, account, tmp_path, request):
    async with helpers_way(cluster, account, tmp_path, direct=request.param == "direct") as made:
        yield made


def real_caller(way):
    return {
        "herdsman-impersonator": ["herdsman:ada"],
        "herdsman-principal": [f"local:user:{way.door.uids['user/ada']}"],
        "herdsman-token": [way.token.split("_")[1]],
    }


async def test_cluster_sees_the_wished_user_groups_uid_and_extras_and_who_really_calls(way):
    seen = await whoami(
        way, "--as=jane", "--as-group=readers", "--as-uid=17", "--as-user-extra=scopes=view",
        "--as-user-extra=example.com/why=on call",
    )  # fmt: skip
    assert seen["username"] == "jane"
    assert seen["uid"] == "17"
    assert set(seen["groups"]) == {"readers", "system:authenticated"}
    assert seen["extra"] == {**real_caller(way), "scopes": ["view"], "example.com/why": ["on call"]}


async def test_service_account_has_its_own_groups(way):
    seen = await whoami(way, "--as=system:serviceaccount:robots:builder")
    assert seen["username"] == "system:serviceaccount:robots:builder"
    assert set(seen["groups"]) == {"system:serviceaccounts", "system:serviceaccounts:robots", "system:authenticated"}
    assert seen["extra"] == real_caller(way)


async def test_rights_are_those_of_the_wished_user_and_no_more(way):
    assert (await way.kubectl("get", "configmaps")).code == 1
    made = await way.kubectl("create", "configmap", "hers", "--as=jane")
    assert made.code == 0, made.err
    elsewhere = await way.kubectl("get", "configmaps", "-n", "robots", "--as=jane")
    assert 'User "jane" cannot list resource "configmaps"' in elsewhere.err
    reader = await way.kubectl("get", "configmaps", "-n", "robots", "--as=jane", "--as-group=readers")
    assert reader.code == 0, reader.err
    gone = await way.kubectl("delete", "configmap", "hers", "--as=jane")
    assert gone.code == 0, gone.err


async def test_list_of_what_somebody_may_is_theirs(way):
    answer = await way.kubectl("auth", "can-i", "--list", "--as=jane")
    assert answer.code == 0, answer.err
    assert "configmaps" in answer.out
    own = await way.kubectl("auth", "can-i", "--list")
    assert "impersonate" in own.out
    assert "configmaps" not in own.out
    assert (await way.kubectl("auth", "can-i", "create", "pods", "--as=jane")).out.strip() == "yes"
    assert (await way.kubectl("auth", "can-i", "create", "nodes", "--as=jane")).out.strip() == "no"


DENIED = {
    "user": (["--as=jim"], 'cannot impersonate resource "users" in API group "" at the cluster scope'),
    "user of the hub": (["--as=herdsman:eve"], 'cannot impersonate resource "users"'),
    "group": (["--as=jane", "--as-group=writers"], 'cannot impersonate resource "groups"'),
    "one group of two": (["--as=jane", "--as-group=readers", "--as-group=writers"], 'groups "writers" is forbidden'),
    "uid": (["--as=jane", "--as-uid=18"], 'cannot impersonate resource "uids" in API group "authentication.k8s.io"'),
    "extra's value": (["--as=jane", "--as-user-extra=scopes=edit"], 'cannot impersonate resource "userextras/scopes"'),
    "extra's key": (["--as=jane", "--as-user-extra=other=view"], 'cannot impersonate resource "userextras/other"'),
    "account elsewhere": (
        ["--as=system:serviceaccount:default:default"],
        'cannot impersonate resource "serviceaccounts" in API group "" in the namespace "default"',
    ),
}


@pytest.mark.parametrize("what", DENIED)
async def test_what_the_cluster_does_not_allow_the_caller_is_403_in_the_clusters_words(way, what):
    wish, text = DENIED[what]
    answer = await way.kubectl("get", "--raw", CONFIGMAPS, *wish)
    assert answer.code == 1
    assert "Forbidden" in answer.err
    assert text in answer.err
    assert 'User "herdsman:ada"' in answer.err


RESERVED = [
    ["--as=system:admin"],
    ["--as=system:node:edge-1"],
    ["--as=system:kube-scheduler"],
    ["--as=system:serviceaccount:kube-system:generic-garbage-collector"],
    ["--as=system:serviceaccount:herdsman-system:herdsman-agent"],
    ["--as=jane", "--as-group=system:masters"],
    ["--as=jane", "--as-group=system:nodes"],
    ["--as=jane", "--as-user-extra=herdsman-impersonator=herdsman:eve"],
]


async def test_reserved_identity_is_refused_though_the_cluster_would_allow_it(way):
    # The cluster allows everything to an administrator: the refusal is ours.
    await as_admin(
        way.cluster, "create", "clusterrolebinding", "all", "--clusterrole=cluster-admin",
        "--group=herdsman:cluster:prod:helper",
    )  # fmt: skip
    try:
        allowed = await way.kubectl("get", "--raw", CONFIGMAPS, "--as=anybody", "--as-group=whatever", "--as-uid=x")
        assert 'User "anybody" cannot list resource' in allowed.err
        for wish in RESERVED:
            answer = await way.kubectl("get", "--raw", CONFIGMAPS, *wish)
            assert answer.code == 1
            assert "Forbidden" in answer.err
            assert "nobody may impersonate" in answer.err
    finally:
        await as_admin(way.cluster, "delete", "clusterrolebinding", "all")


@pytest.mark.parametrize(
    "lines",
    [["Impersonate-Group: readers"], ["Impersonate-User: jane", "Impersonate-User: jane"], ["Impersonate-Uid: 17"]],
)
async def test_wish_that_kube_apiserver_would_not_take_is_400(way, lines):
    assert (await way.door.get(f"{PREFIX}/version", way.token, *lines)).status == 400


async def test_watch_under_a_wish_hears_events_and_ends_with_the_real_callers_role(way):
    from libs.common.resources.access import RoleTemplateBinding

    reader, writer = await way.door.connect()
    target = f"{PREFIX}/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dseen"
    writer.write(
        f"GET {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {way.token}\r\nImpersonate-User: jane\r\n\r\n".encode()
    )
    async with asyncio.timeout(30):
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert (await way.kubectl("create", "configmap", "seen", "--as=jane")).code == 0
        assert b"ADDED" in await reader.readuntil(b"}\n")
        await way.kubectl("delete", "configmap", "seen", "--as=jane")
        await way.door.remove(RoleTemplateBinding, "adas")
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            writer.close()
    writer.close()
    assert (await way.door.get(f"{PREFIX}/version", way.token, "Impersonate-User: jane")).status == 403


async def test_right_taken_away_in_the_cluster_counts_with_the_next_call(way):
    assert (await whoami(way, "--as=jane"))["username"] == "jane"
    role = json.loads((await as_admin(way.cluster, "get", "clusterrole", "helper", "-o", "json")).out)
    await as_admin(way.cluster, "patch", "clusterrole", "helper", "--type=json", '-p=[{"op":"remove","path":"/rules"}]')
    try:
        for _ in range(50):  # the API server's own view of its rules is a watch behind
            if (await way.door.get(f"{PREFIX}/version", way.token, "Impersonate-User: jane")).status == 403:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("still allowed")
    finally:
        patch = json.dumps([{"op": "add", "path": "/rules", "value": role["rules"]}])
        await as_admin(way.cluster, "patch", "clusterrole", "helper", "--type=json", f"-p={patch}")


async def test_cluster_that_lets_nobody_ask_about_themselves_says_so(way):
    binding = json.loads(
        (await as_admin(way.cluster, "get", "clusterrolebinding", "system:basic-user", "-o", "json")).out
    )
    await as_admin(way.cluster, "delete", "clusterrolebinding", "system:basic-user")
    try:
        for _ in range(50):
            reply = await way.door.get(f"{PREFIX}/version", way.token, "Impersonate-User: jane")
            if reply.status == 403:
                break
            await asyncio.sleep(0.1)
        assert "system:basic-user" in reply.message
    finally:
        del binding["metadata"]["resourceVersion"], binding["metadata"]["uid"]
        await as_admin(way.cluster, "create", "-f", "-", stdin=json.dumps(binding))
