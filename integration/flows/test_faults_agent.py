"""What can be wrong with an agent's circumstances, each with a real agent process: its clock, its CA, its token, a copy of itself."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from integration.flows.conftest import wait_active
from integration.flows.outside import Agent, clock_off, issue_token, make_cluster, running
from integration.harness.hub import BIN, Hub, eventually, run_program
from integration.kubelab.cluster import Cluster
from libs.common.crypto.ca import generate_ca

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(180)]
EXIT_FAILED = 1


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def cluster(needs_kubernetes, tmp_path_factory) -> AsyncIterator[Cluster]:
    """Its certificates were made a day ago, as those of most clusters were: here it is the hub's that are fresh."""
    with pytest.MonkeyPatch.context() as yesterday:
        for name, value in clock_off("-1d").items():
            yesterday.setenv(name, value)
        made = await Cluster.up("outside", tmp_path_factory.mktemp("clusters"), minimal=True)
    yield made
    await made.down(delete=True)


@pytest_asyncio.fixture(loop_scope="package")
async def fresh_hub(tmp_path) -> AsyncIterator[Hub]:
    """One whose certificate was made a moment ago: the hardest case for clocks that are behind."""
    hub = Hub(tmp_path / "hub", "--no-local-cluster")
    await hub.start()
    yield hub
    await hub.stop()


async def forget(hub: Hub, name: str) -> None:
    await (await hub.admin()).must("cluster", "delete", name, "--force", "--yes", "--no-wait")


@pytest.mark.parametrize("offset", ["-1h", "+1h"])
async def test_an_agent_whose_clock_is_an_hour_off_registers_and_serves(fresh_hub, cluster, tmp_path, offset):
    token = await make_cluster(fresh_hub, "skewed")
    agent = Agent(fresh_hub, tmp_path / "agent", cluster.kubeconfig, environment=clock_off(offset))
    async with running(agent, token):
        await agent.says("agent_registered")
        await wait_active(fresh_hub, "skewed")
        admin = await fresh_hub.admin()
        await admin.sees("skewed", "get", "namespaces", "-o", "name")
        # A second life begins with the stored credential, whose times are an hour off as well.
        await agent.stop()
        await agent.start()
        await eventually(lambda: _works(fresh_hub, "skewed"), 30)
    assert "[error" not in agent.log, agent.log


async def _works(hub: Hub, context: str) -> bool:
    admin = await hub.admin()
    return (await admin.kubectl(context, "get", "namespaces", "--request-timeout=2s")).code == 0


async def test_a_sign_in_with_a_clock_far_off_is_told_to_look_at_the_clock(fresh_hub, tmp_path):
    record = fresh_hub.record()
    login = (
        BIN / "herdsman", "login", fresh_hub.url, "--ca-file", fresh_hub.ca_file, "--user", record["admin_user"],
        "--password-file", record["admin_password_file"],
    )  # fmt: skip
    for offset in ("-10d", "+20y"):
        answer = await run_program(
            *login, environment={**clock_off(offset), "HERDSMAN_CONFIG_DIR": str(tmp_path / offset)}
        )
        assert answer.code != 0
        assert "clock" in answer.err, answer.err
        assert "Traceback" not in answer.err
    for offset in ("-1h", "+1h"):
        answer = await run_program(
            *login, environment={**clock_off(offset), "HERDSMAN_CONFIG_DIR": str(tmp_path / offset)}
        )
        assert answer.code == 0, answer.err


async def test_another_ca_is_refused_by_the_cli_and_by_the_agent_before_anything_is_sent(bare_hub, cluster, tmp_path):
    other = tmp_path / "other-ca.crt"
    other.write_bytes(generate_ca("Somebody else", datetime.now(UTC)).certificate)
    record = bare_hub.record()
    answer = await run_program(
        BIN / "herdsman", "login", bare_hub.url, "--ca-file", other, "--user", record["admin_user"],
        "--password-file", record["admin_password_file"], environment={"HERDSMAN_CONFIG_DIR": str(tmp_path / "config")},
    )  # fmt: skip
    assert answer.code != 0
    assert "was not signed by the CA that you gave" in answer.err
    assert "ask for the hub's present CA certificate" in answer.err
    token = await make_cluster(bare_hub, "mistrust")
    agent = Agent(bare_hub, tmp_path / "agent", cluster.kubeconfig, ca_file=other)
    async with running(agent, token):
        await agent.says("is not signed by the CA that this agent was given")
        await agent.says("take the hub's current CA")
        assert "agent_registered" not in agent.log
    # The token never left the machine: with the right CA it is still good.
    agent.ca_file = None
    async with running(agent):
        await agent.says("agent_registered")
    await forget(bare_hub, "mistrust")


async def test_two_agents_of_one_cluster_serve_side_by_side_and_one_that_dies_is_not_missed(
    bare_hub, cluster, tmp_path
):
    token = await make_cluster(bare_hub, "twins")
    first = Agent(bare_hub, tmp_path / "first", cluster.kubeconfig)
    async with running(first, token):
        await wait_active(bare_hub, "twins")
        shutil.copytree(first.folder / "state", tmp_path / "second" / "state")
        second = Agent(bare_hub, tmp_path / "second", cluster.kubeconfig)
        async with running(second):
            await second.says("tunnel_carrier_chosen")
            for _ in range(10):
                assert await _works(bare_hub, "twins"), first.log + second.log
            await first.stop()
            for _ in range(5):
                assert await _works(bare_hub, "twins"), second.log
            assert "another agent" not in first.log + second.log
    await forget(bare_hub, "twins")


async def test_identity_that_was_copied_into_another_cluster_is_told_so_and_the_calls_go_to_one_cluster_only(
    bare_hub, cluster, tmp_path
):
    token = await make_cluster(bare_hub, "copied")
    elsewhere = await Cluster.up("elsewhere", tmp_path / "clusters", minimal=True)
    try:
        first = Agent(bare_hub, tmp_path / "first", cluster.kubeconfig)
        async with running(first, token):
            await wait_active(bare_hub, "copied")
            shutil.copytree(first.folder / "state", tmp_path / "second" / "state")
            second = Agent(bare_hub, tmp_path / "second", elsewhere.kubeconfig)
            async with running(second):
                await first.says("another agent", 30)
                admin = await bare_hub.admin()
                uid = ("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
                theirs = {await admin.sees("copied", *uid) for _ in range(10)}
                assert len(theirs) == 1, first.log + second.log
        # The copy is gone. The loser asks again by itself within two minutes; started anew, it serves at once.
        async with running(first):
            await eventually(lambda: _works(bare_hub, "copied"), 10)
    finally:
        await elsewhere.down(delete=True)
    await forget(bare_hub, "copied")


async def test_a_token_that_was_used_or_deleted_or_never_issued_ends_the_agent_with_what_to_do(
    bare_hub, cluster, tmp_path
):
    deleted = await make_cluster(bare_hub, "tokens")
    await (await bare_hub.admin()).sees("herdsman", "delete", "registrationtokens", "--all")
    used = await issue_token(bare_hub, "tokens")
    async with running(Agent(bare_hub, tmp_path / "good", cluster.kubeconfig), used) as good:
        await good.says("agent_registered")
    for name, bad in (("used", used), ("deleted", deleted), ("made up", used[:-6] + "AAAAAA")):
        await refused(Agent(bare_hub, tmp_path / name, cluster.kubeconfig), bad)
    await forget(bare_hub, "tokens")


async def test_a_token_whose_time_is_over_ends_the_agent_with_what_to_do(fresh_hub, cluster, tmp_path, monkeypatch):
    token = await make_cluster(fresh_hub, "late")
    await fresh_hub.stop()
    with monkeypatch.context() as two_hours_later:
        for name, value in clock_off("+2h").items():
            two_hours_later.setenv(name, value)
        await fresh_hub.start()
    await refused(Agent(fresh_hub, tmp_path / "agent", cluster.kubeconfig), token)


async def refused(agent: Agent, token: str) -> None:
    async with running(agent, token):
        assert await agent.wait(20) == EXIT_FAILED, agent.log
    assert "refuses to register this agent" in agent.log
    assert "issue a fresh one" in agent.log, agent.log
    assert "Traceback" not in agent.log
    assert token not in agent.log
