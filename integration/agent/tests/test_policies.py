"""Policies in a real cluster, seen from the agent: one that the cluster has no API for harms nothing else, and all of it goes with the agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from integration.agent.looking import Looker
from integration.agent.tests.test_apply import HubSide, Setup, config, part
from libs.common.kube.client import KubeClient
from libs.common.policies.admission import render_admission
from libs.common.policies.levels import DOMAIN
from libs.common.policies.pod_security import render_pod_security
from services.agent.claims import is_order
from services.agent.pod_security import BEFORE, MARK
from tests.cluster_controller.made import ROLES
from tests.policies.made import admission, template

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(180)]
AGENT = "kubernetes-admin"


def older(document: dict[str, Any]) -> dict[str, Any]:
    """As if the cluster did not serve the version: it has none of this name."""
    served = str(document["apiVersion"]).startswith("admissionregistration")
    return (
        {**document, "apiVersion": "admissionregistration.k8s.io/v1000"}
        if served and not is_order(document)
        else document
    )


async def test_a_cluster_without_the_api_fails_that_part_alone(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        s.hub.extra = [
            part("policies/teams", *map(older, render_admission(admission(), AGENT))), part("other", config("beside"))
        ]  # fmt: skip
        assert await s.keeper.pull()
        reports = {r.name: r.error for r in await s.keeper.enforce()}
        assert "the cluster has no API version admissionregistration.k8s.io/v1000" in reports["policies/teams"]
        assert reports["other"] == reports["roles"] == ""
        assert (await looker.get("configmap", "beside"))["data"] == {"k": "1"}


async def test_a_second_round_writes_nothing_and_detaching_puts_namespaces_back(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    await looker.run("create", "namespace", "levelled")
    await looker.run("label", "namespace", "levelled", f"{DOMAIN}/enforce=baseline", f"{DOMAIN}/warn=baseline")
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        strict = template(stage="Enforce", enforce={"level": "restricted"}, exemptNamespaces=["default"])
        s.hub.extra = [
            part("policies/teams", *render_admission(admission(), AGENT)), part("pod-security/base", *render_pod_security(strict))
        ]  # fmt: skip
        assert await s.keeper.pull()
        assert [r.error for r in await s.keeper.enforce()] == ["", "", ""]
        there = await looker.get("namespace", "levelled")
        assert there["metadata"]["labels"][f"{DOMAIN}/enforce"] == "restricted"
        versions = [there["metadata"]["resourceVersion"], await policy_version(looker)]
        reports = await s.keeper.enforce()
        assert [r.repairs for r in reports] == [0, 0, 0]
        again = await looker.get("namespace", "levelled")
        assert versions == [again["metadata"]["resourceVersion"], await policy_version(looker)]

        assert await s.detacher.remove() == []
        back = (await looker.get("namespace", "levelled"))["metadata"]
        assert back["labels"] == {
            "kubernetes.io/metadata.name": "levelled",
            f"{DOMAIN}/enforce": "baseline",
            f"{DOMAIN}/warn": "baseline",
        }
        assert MARK not in back["labels"]
        assert BEFORE not in back.get("annotations", {})
        assert "herdsman-teams" not in await looker.run("get", "validatingadmissionpolicies", "-o", "name")
    await looker.run("delete", "namespace", "levelled", "--wait=false")


async def policy_version(looker: Looker) -> str:
    """Of the spec: the status is the cluster's own to write."""
    return str((await looker.get("validatingadmissionpolicy", "herdsman-teams"))["metadata"]["generation"])
