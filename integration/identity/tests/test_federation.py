"""A pod's own token, made by a real API server, is exchanged for one of the hub: by keys that are written down, and by discovery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import pytest_asyncio

from integration.flows.conftest import wait_active
from integration.flows.outside import Agent, make_cluster, running
from integration.harness.hub import BIN, Hub, eventually, run_program
from integration.identity.connect_proxy import ConnectProxy, proxying
from integration.kubelab import binaries
from integration.kubelab.cluster import Cluster
from integration.kubelab.kubectl import kubectl
from libs.common import errors

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
ISSUER = "https://kubernetes.default.svc"
AUDIENCE = "https://hub.example"
NAMESPACES = "/k8s/clusters/edge/api/v1/namespaces"


@dataclass
class Site:
    """A hub with the cluster `edge`, which is the issuer too; the hub's way to the issuer's name is a proxy."""

    hub: Hub
    cluster: Cluster
    proxy: ConnectProxy
    folder: Path

    async def in_cluster(self, *arguments: str, stdin: bytes = b"") -> str:
        answer = await kubectl(self.cluster.kubeconfig, *arguments, stdin=stdin)
        assert answer.code == 0, answer.err
        return answer.out

    async def workload_token(self, account: str = "runner", audience: str = AUDIENCE) -> Path:
        """What a pod of that service account finds in its projected volume: a file with a token by TokenRequest."""
        given = [f"--audience={audience}"] if audience else []
        text = await self.in_cluster("create", "token", account, "-n", "ci", "--duration=10m", *given)
        file = self.folder / f"{account}.token"
        file.write_text(text, encoding="ascii")
        return file

    async def apply(self, name: str, **spec: object) -> str:
        """A credential for the pods of service account `runner`; what kubectl says about it."""
        admin = await self.hub.admin()
        wanted = {
            "user": "deploy-bot", "issuer": ISSUER, "audiences": [AUDIENCE], "subject": "system:serviceaccount:ci:runner",
            "clusters": ["edge"], "readOnly": True, "ttlSeconds": 300, **spec,
        }  # fmt: skip
        document = {
            "apiVersion": "management.herdsman.dev/v1",
            "kind": "FederatedCredential",
            "metadata": {"name": name},
            "spec": wanted,
        }
        answer = await admin.kubectl("herdsman", "apply", "-f", "-", stdin=json.dumps(document).encode())
        assert answer.code == 0, answer.err
        return answer.err

    async def delete(self, name: str) -> None:
        await (await self.hub.admin()).sees("herdsman", "delete", "federatedcredential", name)

    async def exchange(self, file: Path, *options: str):
        """`herdsman token exchange` of a machine where nobody ever signed in."""
        environment = {
            "HERDSMAN_URL": self.hub.url, "HERDSMAN_CA_FILE": str(self.hub.ca_file), "HERDSMAN_CONFIG_DIR": str(self.folder / "nobody"),
        }  # fmt: skip
        return await run_program(
            BIN / "herdsman", "token", "exchange", "--subject-token-file", file, *options, environment=environment
        )

    async def through_hub(self, token: str, *arguments: str):
        """kubectl in `edge` through the hub, with nothing but this token."""
        empty = self.folder / "kubectl" / "empty"
        empty.parent.mkdir(exist_ok=True)
        empty.write_text("", encoding="ascii")
        return await kubectl(
            empty, f"--server={self.hub.url}/k8s/clusters/edge", f"--certificate-authority={self.hub.ca_file}", f"--token={token}", *arguments
        )  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory) -> AsyncIterator[Site]:
    try:
        binaries.find(binaries.MINIMAL)
    except errors.NotFound as exc:
        pytest.skip(f"{exc}: make kubelab")
    folder = tmp_path_factory.mktemp("federation")
    cluster = await Cluster.up("issuer", folder / "clusters", minimal=True)
    server = urlsplit(cluster.server)
    try:
        async with proxying({"kubernetes.default.svc:443": (str(server.hostname), int(server.port or 443))}) as proxy:
            hub = Hub(folder / "hub", "--no-local-cluster")
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("HTTPS_PROXY", proxy.url)
                environment.setenv("NO_PROXY", "127.0.0.1,localhost")
                await hub.start()
            try:
                made = Site(hub, cluster, proxy, folder)
                await made.in_cluster("create", "namespace", "ci")
                for account in ("runner", "other"):
                    await made.in_cluster("create", "serviceaccount", account, "-n", "ci")
                token = await make_cluster(hub, "edge")
                async with running(Agent(hub, folder / "agent", cluster.kubeconfig), token):
                    await wait_active(hub, "edge")
                    admin = await hub.admin()
                    await admin.must(
                        "user", "create-service", "deploy-bot", "--description", "deploys from the cluster"
                    )
                    await admin.must("grant", "--user", "deploy-bot", "--role", "cluster-owner", "--cluster", "edge")
                    await admin.must("grant", "--user", "deploy-bot", "--role", "admin", "--global")
                    yield made
            finally:
                await hub.stop()
    finally:
        await cluster.down(delete=True)


async def test_a_pods_token_is_exchanged_for_one_that_reads_this_cluster_alone(site: Site):
    jwks = await site.in_cluster("get", "--raw", "/openid/v1/jwks")
    assert "arning" not in await site.apply("pods", jwks=jwks)
    exchanged = await site.exchange(await site.workload_token())
    assert exchanged.code == 0, exchanged.err
    token = exchanged.out.strip()

    # deploy-bot owns the cluster and is an administrator of the hub; the token only reads, and in this cluster alone.
    read = await site.through_hub(token, "get", "namespaces", "-o", "name")
    assert "namespace/ci" in read.out, read.err
    written = await site.through_hub(token, "create", "namespace", "nothing")
    assert written.code != 0
    assert "read-only" in written.err or "orbidden" in written.err
    assert (await site.hub.get("/apis/management.herdsman.dev/v1/users", token))[0] == 403
    listed = await (await site.hub.admin()).sees("herdsman", "get", "tokens", "-o", "wide")
    assert "pods: system:serviceaccount:ci:runner" in listed
    await site.delete("pods")


async def test_what_the_credential_does_not_mean_is_refused_in_the_same_words(site: Site):
    jwks = await site.in_cluster("get", "--raw", "/openid/v1/jwks")
    await site.apply("pods", jwks=jwks)
    good = (await site.workload_token()).read_text().strip()
    head, payload, signature = good.split(".")
    forged = site.folder / "forged.token"
    forged.write_text(f"{head}.{payload}.{signature[:-8]}AAAAAAAA", encoding="ascii")
    files = [
        await site.workload_token("other"),
        forged,
        await site.workload_token("runner", "https://elsewhere.example"),
    ]
    said = set()
    for file in files:
        refused = await site.exchange(file)
        assert refused.code == 1
        said.add(refused.err)
    refused = await site.exchange(await site.workload_token("runner", ""))
    assert refused.code == 1
    said.add(refused.err)
    assert said == {"herdsman: this token is not accepted: an administrator can read why in the hub's log\n"}
    log = (site.hub.data / "logs" / "identity.log").read_text(encoding="utf-8")
    assert good not in log
    for reason in ("pods: subject", "its signature is not good", "pods: audience"):
        assert reason in log
    await site.delete("pods")


async def test_the_answer_is_that_of_the_standard(site: Site):
    jwks = await site.in_cluster("get", "--raw", "/openid/v1/jwks")
    await site.apply("pods", jwks=jwks)
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": (await site.workload_token()).read_text().strip(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }  # fmt: skip

    async def post(fields: dict[str, str]) -> tuple[bytes, dict[str, object]]:
        body = urlencode(fields).encode()
        head = f"POST /v1/token HTTP/1.1\r\nHost: hub\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = await site.hub.raw(head.encode() + body)
        first, _, rest = answer.partition(b"\r\n\r\n")
        return first, json.loads(rest)

    head, document = await post(form)
    assert head.startswith(b"HTTP/1.1 200"), head
    assert b"cache-control: no-store" in head.lower()
    assert set(document) == {"access_token", "issued_token_type", "token_type", "expires_in"}
    assert (document["token_type"], document["expires_in"] in (299, 300)) == ("Bearer", True)
    head, document = await post({**form, "grant_type": "password"})
    assert head.startswith(b"HTTP/1.1 400"), head
    assert document["error"] == "unsupported_grant_type"
    await site.delete("pods")


async def test_the_issuers_keys_are_found_by_discovery(site: Site):
    ca = site.cluster.ca_file.read_text(encoding="ascii")
    # Nobody may read an API server's discovery without a name until that is allowed.
    assert "answered 40" in await site.apply("pods", ca=ca)
    await site.in_cluster(
        "create", "clusterrolebinding", "discovery-for-all", "--clusterrole=system:service-account-issuer-discovery", "--group=system:unauthenticated"
    )  # fmt: skip
    assert "arning" not in await site.apply("found", ca=ca, ttlSeconds=60)
    exchanged = await site.exchange(await site.workload_token(), "--resource", "found")
    assert exchanged.code == 0, exchanged.err
    assert "kubernetes.default.svc:443" in site.proxy.asked
    assert (await site.through_hub(exchanged.out.strip(), "get", "namespaces")).code == 0

    ambiguous = await site.exchange(await site.workload_token())
    assert ambiguous.code == 1
    assert "several credentials fit this token" in ambiguous.err
    for name in ("pods", "found"):
        await site.delete(name)


@pytest.mark.parametrize("end", ["delete", "disable"])
async def test_with_the_credential_its_tokens_and_their_streams_end_within_a_second(site: Site, end: str):
    jwks = await site.in_cluster("get", "--raw", "/openid/v1/jwks")
    await site.apply("pods", jwks=jwks)
    token = (await site.exchange(await site.workload_token())).out.strip()
    name = token.split("_")[1]
    request = f"GET {NAMESPACES}?watch=true HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n\r\n"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", site.hub.port, ssl=site.hub.tls(), server_hostname="localhost"
    )
    writer.write(request.encode())
    async with asyncio.timeout(10):
        await reader.readuntil(b"ADDED")

    await (site.delete("pods") if end == "delete" else site.apply("pods", jwks=jwks, enabled=False))
    async with asyncio.timeout(1):
        while await reader.read(65_536):
            pass
        assert (await site.hub.get(NAMESPACES, token))[0] == 401
    writer.close()
    refused = await site.exchange(await site.workload_token())
    assert refused.code == 1
    admin = await site.hub.admin()

    async def is_removed() -> bool:
        return (await admin.kubectl("herdsman", "get", "token", name)).code != 0

    await eventually(is_removed, 5)
    if end == "disable":
        # What was issued before does not come back with the credential.
        await site.apply("pods", jwks=jwks)
        assert (await site.hub.get(NAMESPACES, token))[0] == 401
        assert (await site.exchange(await site.workload_token())).code == 0
        await site.delete("pods")
