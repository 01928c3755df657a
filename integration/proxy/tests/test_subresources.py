"""Whatever runs in a pod, reached by the proxy subresources: bytes of its own, kept from acting as the hub's page in a browser."""

from __future__ import annotations

import asyncio
import re

import pytest

from integration.kubelab.kubectl import find_kubectl

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(240)]
PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize("target", [f"{PODS}/web:8080/proxy/index.html", "/api/v1/namespaces/default/services/web:8080/proxy/index.html"])  # fmt: skip
async def test_a_page_of_a_pod_comes_sandboxed(web, both, target):
    answer = await both.same(target)
    assert (answer.status, answer.body) == (200, b"page\n")
    # It shares the hub's origin: no script of it may run as the hub's, and no type is guessed.
    assert answer.header("content-security-policy") == "sandbox"
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("content-type").startswith("text/html")


async def test_what_a_pod_refuses_is_the_pods_answer(web, both):
    answer = await both.same(f"{PODS}/web:8080/proxy/none")
    assert answer.status == 404
    assert answer.header("content-security-policy") == "sandbox"


async def test_a_redirect_of_a_pod_stays_inside_the_cluster(web, both):
    """busybox sends a folder without its slash to the folder; the address it names must still lead through the hub."""
    made = await web.kubectl(
        "exec", "web", "--", "sh", "-c", "mkdir -p /www/folder && echo in > /www/folder/index.html"
    )
    assert made.code == 0, made.err
    answer = await web.door.get(f"/k8s/clusters/prod{PODS}/web:8080/proxy/folder", web.token)
    assert answer.status in (301, 302)
    (location,) = re.findall(rb"(?im)^location: (\S+)", answer.head)
    assert location.startswith(b"/k8s/clusters/prod/"), location
    followed = await web.door.get(location.decode(), web.token)
    assert followed.body == b"in\n"


async def test_escaped_paths_arrive_as_they_were_written(web, both):
    assert (await web.kubectl("exec", "web", "--", "sh", "-c", "echo spaced > '/www/a b%c'")).code == 0
    answer = await both.same(f"{PODS}/web:8080/proxy/a%20b%25c?x=%2F%20%E2%82%AC&x=2")
    assert answer.body == b"spaced\n"


async def test_kubectl_proxy_serves_the_hubs_cluster(web, both):
    process = await asyncio.create_subprocess_exec(
        # A kubeconfig whose server has a path needs the option: kubectl leaves the path out otherwise, and says so.
        find_kubectl(), f"--kubeconfig={web.kubeconfig}", "proxy", "--port=0", "--append-server-path", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            announced = re.search(rb"127\.0\.0\.1:(\d+)", await process.stdout.readline())
        assert announced is not None
        answers = {}
        for path in ("/api/v1/namespaces/default", f"{PODS}/web:8080/proxy/index.html", "/version"):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(announced[1]))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            async with asyncio.timeout(20):
                answers[path] = await reader.read()
            writer.close()
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers.values()), answers
        assert answers[f"{PODS}/web:8080/proxy/index.html"].endswith(b"page\n")
    finally:
        process.terminate()
        await process.communicate()
