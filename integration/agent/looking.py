"""What is in a cluster, asked with kubectl: the tests' own eyes, which share no code with the agent."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KUBECTL = Path(sys.executable).with_name("kubectl")
KINDS = "clusterroles,clusterrolebindings,roles,rolebindings,configmaps,secrets,namespaces,serviceaccounts"

HUB_GROUP = ["ClusterRole/herdsman:hub:namespaces", "ClusterRoleBinding/herdsman:hub:namespaces"]
"""What every cluster holds, whatever roles there are: the front door asks it for namespaces under this group."""


async def eventually(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until something that another process does is done. Raises AssertionError when it is not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


class Looker:
    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    async def run(self, *arguments: str, input_: str = "") -> str:
        """kubectl's output. Raises AssertionError with what it said when it fails."""
        process = await asyncio.create_subprocess_exec(
            str(KUBECTL), "--kubeconfig", str(self._kubeconfig), *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(input_.encode())
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def apply(self, *documents: dict[str, Any]) -> None:
        await self.run("apply", "-f", "-", input_=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))

    async def labelled(self) -> list[str]:
        """Everything that carries our label, of every kind that can be listed."""
        kinds = (await self.run("api-resources", "--verbs=list,delete", "-o", "name")).split()
        kinds = [k for k in kinds if not k.startswith(("events", "componentstatuses"))]
        out = await self.run("get", ",".join(kinds), "-A", "-l", "app.kubernetes.io/managed-by=herdsman", "-o", "json")
        return sorted(f"{i['kind']}/{i['metadata']['name']}" for i in json.loads(out)["items"])

    async def named(self) -> list[str]:
        """Everything that is called ours, labelled or not."""
        out = json.loads(await self.run("get", KINDS, "-A", "-o", "json"))
        return sorted(
            f"{i['kind']}/{i['metadata']['name']}" for i in out["items"] if i["metadata"]["name"].startswith("herdsman")
        )

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.run("get", kind, name, "-o", "json"))
        return found

    async def with_finalizers(self) -> list[str]:
        out = json.loads(await self.run("get", "clusterroles,clusterrolebindings,configmaps", "-A", "-o", "json"))
        return [i["metadata"]["name"] for i in out["items"] if i["metadata"].get("finalizers")]

    async def clean(self) -> None:
        """Remove whatever a failed test left, so that the next one starts from nothing."""
        for name in await self.named():
            kind, _, object_name = name.partition("/")
            if kind != "Namespace":
                await self.run("delete", kind.lower(), object_name, "--ignore-not-found", "--wait=false")
