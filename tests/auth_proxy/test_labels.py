"""A role in the clusters with a label: at the door it begins and ends with the label, streams included."""

from __future__ import annotations

import asyncio

from libs.common.resources.access import BindingScope, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.clusters import Cluster
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import Door, meta

PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"


async def label(door: Door, cluster: Cluster, env: str) -> None:
    labelled = cluster.metadata.model_copy(update={"labels": {"env": env}})
    await door.put(cluster.model_copy(update={"metadata": labelled}))


async def test_a_cluster_that_is_labelled_later_is_open_and_one_that_loses_the_label_cuts_its_watches(
    door: Door, echo: Echo
):
    person = await door.user("ada")
    await door.role()
    scope = BindingScope.model_validate({"clusterSelector": {"matchLabels": {"env": "dev"}}})
    spec = RoleTemplateBindingSpec(principal=f"local:user:{person.uid}", role="cluster-owner", scope=scope)
    await door.put(RoleTemplateBinding(metadata=meta("by-label"), spec=spec))
    token = await door.token(person)
    cluster = await door.cluster("prod")
    async with door.agent("prod", echo.address, idle=3):
        assert (await door.get(PODS, token)).status == 403
        await label(door, cluster, "dev")
        assert (await door.get(PODS, token)).status == 200
        reader, writer = await door.connect()
        writer.write(f"GET {PODS}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            await reader.readuntil(b"\r\n\r\n")
        await label(door, cluster, "prod")
        async with asyncio.timeout(1):
            while await reader.read(65536):
                pass
        writer.close()
        assert (await door.get(PODS, token)).status == 403
