"""Clients other than kubectl: a controller of client-go's parts, kubernetes-asyncio, and Helm."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from kubernetes_asyncio import client, config, watch
from kubernetes_asyncio.stream import WsApiClient

from integration.harness.hub import run_program
from integration.proxy.go_programs import HELM, TEST_PROGRAMS, build_program, find_program

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(900)]
LONG = bool(os.environ.get("HERDSMAN_LONG_TESTS"))


async def test_a_controller_of_client_go_discovers_leads_and_misses_nothing(way):
    """Protobuf, an informer with initial events by watch, leases, the discovery cache: while pods come and go."""
    program = await asyncio.to_thread(build_program, TEST_PROGRAMS)
    during = "20s" if LONG else "8s"
    answer = await run_program(
        program, "controller", f"--kubeconfig={way.kubeconfig}", "--namespace=default", f"--for={during}", timeout_s=180
    )
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["created"] > 30
    assert (found["missed"], found["different"]) == ([], [])
    assert found["leaders"] == ["first", "second"]
    assert found["kinds"] > 50
    assert found["first_discovery_requests"] > 0
    assert found["second_discovery_requests"] == 0


@pytest.fixture
async def configuration(way):
    made = client.Configuration()
    await config.load_kube_config(config_file=str(way.kubeconfig), client_configuration=made)
    return made


async def test_kubernetes_asyncio_lists_watches_and_changes(configuration):
    async with client.ApiClient(configuration) as api:
        core = client.CoreV1Api(api)
        listed = await core.list_namespaced_config_map("default", limit=1)
        seen = []

        async def follow() -> None:
            async with watch.Watch() as stream:
                async for event in stream.stream(
                    core.list_namespaced_config_map, "default", resource_version=listed.metadata.resource_version,
                    field_selector="metadata.name=asyncio",
                ):  # fmt: skip
                    seen.append((event["type"], event["object"].data))
                    if event["type"] == "DELETED":
                        return

        following = asyncio.create_task(follow(), name="watch")
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="asyncio"), data={"a": "1"})
        await core.create_namespaced_config_map("default", body)
        await core.patch_namespaced_config_map("asyncio", "default", {"data": {"a": "2"}})
        await core.delete_namespaced_config_map("asyncio", "default")
        async with asyncio.timeout(30):
            await following
    assert seen == [("ADDED", {"a": "1"}), ("MODIFIED", {"a": "2"}), ("DELETED", {"a": "2"})]


async def test_kubernetes_asyncio_runs_a_command_by_websocket(web, configuration):
    async with WsApiClient(configuration) as api:
        core = client.CoreV1Api(api)
        call = await core.connect_get_namespaced_pod_exec(
            "web", "default", command=["sh", "-c", "echo out; echo err >&2; exit 4"], stdout=True, stderr=True, stdin=False,
            tty=False, _preload_content=False,
        )  # fmt: skip
        found: dict[int, bytes] = {}
        async with asyncio.timeout(30), call as socket:
            async for message in socket:
                found[message.data[0]] = found.get(message.data[0], b"") + message.data[1:]
    assert (found[1], found[2]) == (b"out\n", b"err\n")
    assert api.parse_error_data(found[3].decode()) == 4


CHART = {
    "Chart.yaml": "apiVersion: v2\nname: small\nversion: 0.1.0\n",
    "values.yaml": "count: 30\nword: first\n",
    "templates/maps.yaml": (
        "{{- range $i := until (int .Values.count) }}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n"
        "  name: {{ $.Release.Name }}-{{ $i }}\ndata:\n  word: {{ $.Values.word }}\n{{- end }}\n"
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}\nspec:\n  replicas: 1\n"
        "  selector: {matchLabels: {app: {{ .Release.Name }}}}\n  template:\n    metadata: {labels: {app: {{ .Release.Name }}}}\n"
        "    spec:\n      terminationGracePeriodSeconds: 0\n      containers:\n"
        "      - {name: c, image: 'herdsman.dev/kubelab/busybox:1', imagePullPolicy: Never, command: [sleep, '1000']}\n"
    ),
}


@pytest.mark.skipif(
    not LONG and find_program(HELM) is None,
    reason="helm is not built: HERDSMAN_LONG_TESTS=1 builds it, in some minutes",
)
async def test_helm_installs_upgrades_rolls_back_and_takes_away(web, tmp_path):
    program = await asyncio.to_thread(build_program, HELM)
    for name, text in CHART.items():
        (tmp_path / "small" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "small" / name).write_text(text)
    environment = {
        "KUBECONFIG": str(web.kubeconfig), "HELM_CACHE_HOME": str(tmp_path / "cache"), "HELM_CONFIG_HOME": str(tmp_path / "config"),
        "HELM_DATA_HOME": str(tmp_path / "data"), "HELM_NAMESPACE": "default",
    }  # fmt: skip

    async def helm(*arguments: str) -> str:
        answer = await run_program(program, *arguments, environment=environment, timeout_s=180)
        assert answer.code == 0, answer.err
        return answer.out

    async def word() -> str:
        return (await web.kubectl("get", "configmap", "charted-29", "-o", "jsonpath={.data.word}")).out

    await helm("install", "charted", str(tmp_path / "small"), "--wait", "--timeout=120s")
    assert await word() == "first"
    await helm("upgrade", "charted", str(tmp_path / "small"), "--set", "word=second", "--wait", "--timeout=120s")
    assert await word() == "second"
    await helm("rollback", "charted", "1", "--wait", "--timeout=120s")
    assert await word() == "first"
    assert [entry["status"] for entry in json.loads(await helm("history", "charted", "-o", "json"))] == ["superseded", "superseded", "deployed"]  # fmt: skip
    await helm("uninstall", "charted", "--wait", "--timeout=120s")
    assert (await web.kubectl("get", "configmaps", "-o", "name")).out.count("charted") == 0
