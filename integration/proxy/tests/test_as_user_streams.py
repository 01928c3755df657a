"""exec into a real pod under --as, by WebSocket and by SPDY, through an agent and directly."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from integration.kubelab.images import BUSYBOX_IMAGE
from integration.kubelab.kubectl import find_kubectl
from integration.proxy.tests.wishes import agent_token, as_admin, helpers_way
from libs.common.resources.access import RoleTemplateBinding

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(300)]
CARRIERS = {"websocket": "true", "spdy": "false"}
PATHS = ("agent", "direct")


@pytest.fixture(scope="module")
def account(full_cluster):
    async def prepare() -> str:
        await as_admin(
            full_cluster,
            "run",
            "wished",
            f"--image={BUSYBOX_IMAGE}",
            "--image-pull-policy=Never",
            "--",
            "sleep",
            "100000",
        )
        await as_admin(full_cluster, "wait", "--for=condition=Ready", "pod/wished", "--timeout=50s")
        return await agent_token(full_cluster)

    return asyncio.run(prepare())


@pytest.fixture
async def way(cluster, account, tmp_path, request):
    async with helpers_way(cluster, account, tmp_path, direct=request.param == "direct") as made:
        yield made


@pytest.fixture(params=CARRIERS)
def environment(request):
    return {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": CARRIERS[request.param]}


async def test_exec_as_somebody_who_may_and_not_as_the_caller_who_may_not(way, environment):
    own = await way.kubectl("exec", "wished", "--", "true", environment=environment)
    assert own.code == 1
    assert 'User "herdsman:ada" cannot' in own.err
    sent = os.urandom(300_000).hex().encode()
    answer = await way.kubectl("exec", "-i", "wished", "--as=jane", "--", "cat", stdin=sent, environment=environment)
    assert answer.out.encode() == sent, answer.err
    code = await way.kubectl("exec", "wished", "--as=jane", "--", "sh", "-c", "exit 7", environment=environment)
    assert code.code == 7


async def test_wish_that_is_not_allowed_opens_no_stream(way, environment):
    answer = await way.kubectl("exec", "wished", "--as=jim", "--", "true", environment=environment)
    assert answer.code == 1
    reserved = await way.kubectl(
        "exec", "wished", "--as=jane", "--as-group=system:masters", "--", "true", environment=environment
    )
    assert reserved.code == 1


async def test_exec_under_a_wish_ends_with_the_real_callers_role(way, environment):
    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={way.kubeconfig}", "--as=jane", "exec", "wished", "--", "sh", "-c", "echo here; sleep 60",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(40):
        assert await process.stdout.readline() == b"here\n"
        began = time.monotonic()
        await way.door.remove(RoleTemplateBinding, "adas")
        await process.communicate()
    # kubectl says 0 for a SPDY stream that was torn: only the time tells.
    assert time.monotonic() - began < 10
