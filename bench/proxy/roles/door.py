"""The front door by its own `build`, state in memory stores, with people, clusters and roles in it.

Clusters `direct0` … are reached by a kubeconfig, `reverse` through an agent's connections. With `socket`, the number of a descriptor, it
accepts on that, as a worker does.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from bench.proxy import scene
from bench.proxy.roles import talk
from libs.common.resources.identity import Token, TokenPrivate, TokenSpec
from tests.auth_proxy.door import Door, meta, open_door

ROLES = ("cluster-owner", "cluster-member", "log-reader")
DIRECT = 4
"""Several, because the connections to one cluster are limited and 10,000 watches are more than that."""


async def serve(config: dict[str, Any]) -> None:
    settings = config.get("settings", {})
    clusters = write_kubeconfigs(Path(config["folder"]) / "clusters", Path(config["backend_folder"]), config["backend"])
    async with open_door(Path(config["folder"]), stop_timeout_s=0.1, direct_clusters=clusters, **settings) as door:
        for name, token in config["people"].items():
            await make_member(door, name, token)

        async def handle(command: dict[str, Any]) -> dict[str, Any]:
            began = time.monotonic()
            await door.user(command["name"], enabled=command["do"] == "enable")
            return {"began": began}

        await talk.serve(
            handle, port=door.port, cluster=door.uids["cluster/reverse"],
            seed=door.keys["reverse"].seed.decode(),
        )  # fmt: skip


async def make_member(door: Door, name: str, token: str) -> None:
    """A person with three roles in every cluster, and a token that several doors can know."""
    person = await door.user(name)
    for role in ROLES:
        await door.role(role)
    for cluster in ("reverse", *(f"direct{n}" for n in range(DIRECT))):
        if f"cluster/{cluster}" not in door.uids:
            await door.cluster(cluster)
        for role in ROLES:
            await door.bind(person, cluster, role)
    _, key, secret = token.split("_", 2)
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    spec = TokenSpec(user=person.name, user_uid=person.uid, expires_at=expires)
    private = TokenPrivate(secret_hash=hashlib.sha256(secret.encode()).hexdigest())
    await door.put(Token(metadata=meta(key), spec=spec, private=private))


def write_kubeconfigs(folder: Path, pki: Path, port: int) -> Path:
    """The folder of the direct clusters, all of which lead to the API server's stand-in."""
    folder.mkdir(mode=0o700)
    server = {"server": f"https://localhost:{port}", "certificate-authority": str(pki / "tls.crt")}
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {"token": scene.API_CREDENTIAL.removeprefix("Bearer ")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    for number in range(DIRECT):
        file = folder / f"direct{number}.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(content), encoding="ascii")
    return folder


if __name__ == "__main__":
    talk.run(serve)
