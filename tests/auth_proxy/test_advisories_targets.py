"""Route confusion: the path that is authorised is the path that goes on, byte for byte, or the request is refused."""

from __future__ import annotations

import pytest

from tests.auth_proxy.recorder import FORMS

TWO_WAYS = [
    "http://evil/k8s/clusters/prod/api", "https://hub/k8s/clusters/prod/api", "prod:443", "*", "k8s/clusters/prod/api",
    "/k8s/clusters/prod/../other/api", "/k8s/clusters/prod/%2e%2e/x", "/k8s/clusters/prod/.%2E/x", "/k8s/clusters/prod/%2E./x",
    "/k8s/clusters/prod/./api", "/k8s/clusters/prod/..%2fx", "/k8s/clusters/prod/..%2Fx", "/k8s/clusters/prod/%2e%2e%2fx", "/k8s/clusters/prod/a%2f../b",
    "/k8s/clusters/prod/a%2F..%2Fb", "/k8s/clusters/prod/api/..", "/k8s/clusters/prod/api/..?x", "/k8s/clusters/prod/api/..;/x", "/k8s/clusters/prod/api/..;x",
    "/k8s/clusters/prod/..%5cx", "/k8s/clusters/prod/api/%2e", "/k8s/clusters/prod//api", "/k8s/clusters//api", "/k8s/clusters/", "/k8s/clusters/prod",
    "/k8s/clusters/prod?x", "/k8s/clusters/PROD/api", "/k8s/clusters/prod%2fapi", "/k8s/clusters/prod%2F..%2Fother/api", "/k8s/clusters/prod;x/api",
    "/k8s/clusters/pr%6fd/api", "/k8s/clusters/prod%00/api", "/k8s/clusters/prod%20/api", "/k8s/clusters/prod./api", "/k8s/clusters/prod\\api",
    "/k8s/clusters/prod/a\\..\\b", "/k8s/clusters/prod/api#x", "/k8s/clusters/prod/api#/../x", "/k8s/clusters/pr od/api", "/k8s/clusters/.%2e/api",
    "/k8s/clusters/../clusters/prod/api", "/k8s/clusters/prod/\u00e9", "/k8s/clusters/prod/\x7f", "/k8s/clusters/prod/\x01", "/k8s/clusters/-prod/api",
    "/k8s/clusters/" + "a" * 64 + "/api",
]  # fmt: skip


@pytest.mark.parametrize("target", TWO_WAYS)
async def test_cve_2023_33189_target_that_reads_in_two_ways_is_refused(scene, target):
    """Also oauth2-proxy CVE-2025-54576, CVE-2026-40575, CVE-2026-41059, and path traversal CVE-2022-3162."""
    for form, lines in FORMS.items():
        reply = await scene.say(lines, target=target)
        assert reply.status in (400, 403), (form, reply.raw)
        assert b'"kind": "Status"' in reply.body
    assert not scene.upstream.heads


EXACT = [
    "/api/v1/namespaces/a%2fb", "/api/v1/x%252e%252e/y", "/api/v1//x", "/api;v=1/x", "/api/v1/a..b", "/api/v1/...", "/api/v1/.hidden", "/?x=../../y",
    "/api?watch=true&fieldSelector=a%3Db", "/api/v1/%c3%a9", "/api/v1/services/http:x:80/proxy/", '/a"<>|{}', "/api??x=/k8s/clusters/other", "/%zz",
]  # fmt: skip


@pytest.mark.parametrize("inside", EXACT)
async def test_cve_2025_54576_what_is_not_refused_goes_on_byte_for_byte(scene, inside):
    assert (await scene.say([], target=f"/k8s/clusters/prod{inside}")).status == 200
    (head,) = scene.upstream.heads
    assert head.startswith(f"GET {inside} HTTP/1.1\r\n".encode())


ELSEWHERE = [
    "/K8S/clusters/prod/api", "/k8s/Clusters/prod/api", "/k8s/cluster/prod/api", "/k8s//clusters/prod/api", "//k8s/clusters/prod/api", "/./k8s/clusters/prod/api",
    "/x/../k8s/clusters/prod/api", "/%6b8s/clusters/prod/api", "/k8s%2fclusters/prod/api", "/k8s/clusters%2fprod/api", "/;/k8s/clusters/prod/api", "//hub/k8s/clusters/prod/api",
    "/api/k8s/clusters/prod/api", "/agent/v1/../../k8s/clusters/prod/api", "/nats/../k8s/clusters/prod/api", "/?/k8s/clusters/prod/api",
]  # fmt: skip


@pytest.mark.parametrize("target", ELSEWHERE)
async def test_cve_2026_41059_other_spellings_of_the_path_never_reach_a_cluster(scene, target):
    """They are the gateway's, which has no way to a cluster; here it is not even there."""
    reply = await scene.say([], target=target)
    assert reply.status in (400, 403, 404, 503), reply.raw
    assert not scene.upstream.heads


@pytest.mark.parametrize(
    "method", ["get", "Get", "GET ", "G ET", "GET\t", "", "GETGETGETGETGETGETGETGETGETGETGETGET", "GET/", "G\u00cbT"]
)
async def test_cve_2025_54576_methods_in_odd_spellings_are_refused(scene, method):
    reply = await scene.say([], method=method)
    assert reply.status == 400
    assert not scene.upstream.heads
