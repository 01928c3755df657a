"""The agent's image: only what the agent needs, the same bytes every time, and it runs as an unprivileged pod."""

from __future__ import annotations

import io
import json
import marshal
import os
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from integration.kubelab import agent_image as made
from integration.kubelab.agent_image import AGENT_IMAGE, AGENT_USER, agent_image, dependency_names
from integration.kubelab.cluster import Cluster
from integration.kubelab.images import image_from_root
from integration.kubelab.kubectl import kubectl
from libs.common.errors import NotFound, Unavailable

# Loads every compiled library of the image, so that one which is missing shows; then looks at what it may do.
LOOK_AROUND = """
import ctypes, errno, json, os, pathlib, socket
libraries = sorted({*pathlib.Path("/opt/herdsman").rglob("*.so*"), *pathlib.Path("/usr/lib").rglob("*.so*")})
for library in libraries:
    ctypes.CDLL(str(library), mode=os.RTLD_NOW)
try:
    open("/opt/herdsman/written", "w")
    refused = "nothing"
except OSError as error:
    refused = errno.errorcode[error.errno]
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
local = socket.getaddrinfo("localhost", 80)[0][4][0]
print(json.dumps([os.getuid(), os.getgid(), refused, int(status["CapEff"], 16), local, len(libraries)]))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def tarball(cache: Path) -> Path:
    return agent_image(cache)


@pytest.fixture(scope="module")
def layer(tarball: Path) -> Iterator[tarfile.TarFile]:
    with tarfile.open(tarball) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        with tarfile.open(fileobj=archive.extractfile(manifest["Layers"][0])) as layer:
            yield layer


def test_image_has_the_agent_and_no_other_service(layer: tarfile.TarFile) -> None:
    names = layer.getnames()
    assert "opt/herdsman/services/agent/__init__.py" in names
    services = {name.split("/")[3] for name in names if name.startswith("opt/herdsman/services/")}
    assert services <= {"__init__.py", "__pycache__", "agent"}


@pytest.mark.parametrize("unwanted", ["pytest", "mypy", "click", "kubernetes_asyncio", "ldap3", "pip", "integration"])
def test_image_has_no_tools_and_nothing_of_other_services(layer: tarfile.TarFile, unwanted: str) -> None:
    assert f"opt/herdsman/{unwanted}" not in layer.getnames()


def test_image_has_no_tests_of_python(layer: tarfile.TarFile) -> None:
    library = f"usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    assert f"{library}/asyncio" in layer.getnames()
    assert not {f"{library}/{name}" for name in ("test", "tkinter", "ensurepip", "site-packages")} & {*layer.getnames()}


def test_every_source_has_bytecode_that_is_never_compared_with_it(layer: tarfile.TarFile) -> None:
    names = {*layer.getnames()}
    sources = [name for name in names if name.endswith(".py")]
    assert len(sources) > 500
    for name in sources:
        folder, _, file = name.rpartition("/")
        compiled = f"{folder}/__pycache__/{file.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"
        content = layer.extractfile(compiled).read()
        # PEP 552: the second word is 1 for a hash that is not checked.
        assert int.from_bytes(content[4:8], "little") == 1, compiled
        if name.startswith("opt/herdsman/libs/"):
            assert marshal.loads(content[16:]).co_filename == f"/{name}"


def test_files_can_be_read_by_anybody_and_written_by_nobody_else(layer: tarfile.TarFile) -> None:
    modes = {(member.isdir(), member.mode) for member in layer if not member.issym() and member.name != "tmp"}
    assert modes == {(True, 0o755), (False, 0o644), (False, 0o755)}
    assert layer.getmember("tmp").mode == 0o1777


def test_unchanged_agent_is_not_made_again(cache: Path, tarball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {f"opt/herdsman/{name}": Path(made.__file__) for name in ("a.py", "b.py")}
    monkeypatch.setattr(made, "_choose", lambda: chosen)
    first = agent_image(cache)
    monkeypatch.setattr(made, "_fill", lambda *_: pytest.fail("it was made again"))
    assert agent_image(cache) == first
    assert first != tarball


def test_same_files_give_the_same_bytes_whatever_the_umask(tmp_path: Path, layer: tarfile.TarFile) -> None:
    before = os.umask(0o077)
    try:
        again = agent_image(tmp_path)
    finally:
        os.umask(before)
    with tarfile.open(again) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        with tarfile.open(fileobj=archive.extractfile(manifest["Layers"][0])) as other:
            # Others may be at work on the agent: what is compared is what stays as it is.
            for name in ("usr", "lib", "etc", "opt/herdsman/pydantic", "opt/herdsman/aiohttp"):
                assert digests(layer, name) == digests(other, name)


def digests(layer: tarfile.TarFile, below: str) -> list[tuple[str, int, bytes]]:
    members = [member for member in layer if member.name.startswith(f"{below}/")]
    assert members
    return [(m.name, m.mode, layer.extractfile(m).read() if m.isreg() else m.linkname.encode()) for m in members]


def test_file_that_changes_while_it_is_copied_does_not_give_an_image_under_its_old_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "rules.py"
    source.write_text("OLD = 1\n")
    fill = made._fill

    def fill_late(root: Path, chosen: Mapping[str, Path]) -> None:
        source.write_text("NEW = 1\n")
        fill(root, chosen)

    monkeypatch.setattr(made, "_choose", lambda: {"opt/herdsman/rules.py": source})
    monkeypatch.setattr(made, "_fill", fill_late)
    new = agent_image(tmp_path / "cache")
    assert content_of(new, "opt/herdsman/rules.py") == b"NEW = 1\n"
    source.write_text("OLD = 1\n")
    monkeypatch.setattr(made, "_fill", fill)
    assert content_of(agent_image(tmp_path / "cache"), "opt/herdsman/rules.py") == b"OLD = 1\n"


def test_files_that_never_rest_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "rules.py"
    source.write_text("")
    fill = made._fill

    def fill_late(root: Path, chosen: Mapping[str, Path]) -> None:
        source.write_text(source.read_text() + "# more\n")
        fill(root, chosen)

    monkeypatch.setattr(made, "_choose", lambda: {"opt/herdsman/rules.py": source})
    monkeypatch.setattr(made, "_fill", fill_late)
    with pytest.raises(Unavailable, match="changed 3 times"):
        agent_image(tmp_path / "cache")


def test_cache_keeps_the_latest_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "rules.py"
    monkeypatch.setattr(made, "_choose", lambda: {"opt/herdsman/rules.py": source})
    cache = tmp_path / "cache"
    foreign = image_from_root(Path(made.__file__).parent / "tests", "herdsman.dev/test/other:1", ["/x"], cache=cache)
    built = []
    for number in range(6):
        source.write_text(f"NUMBER = {number}\n")
        built.append(agent_image(cache))
        os.utime(built[-1], (number, number))
    assert [tarball.exists() for tarball in built] == [False, False, True, True, True, True]
    assert len([*cache.glob("agent-*.tar")]) == 4
    assert foreign.exists(), "images that are not the agent's are left alone"


def content_of(tarball: Path, name: str) -> bytes:
    with tarfile.open(tarball) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        layer_bytes = archive.extractfile(manifest["Layers"][0]).read()
    with tarfile.open(fileobj=io.BytesIO(layer_bytes)) as layer:
        return layer.extractfile(name).read()


def install(site: Path, name: str, *requirements: str) -> None:
    folder = site / f"{name.replace('-', '_')}-1.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1", *(f"Requires-Dist: {r}" for r in requirements)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


def test_dependencies_follow_markers_and_only_those_extras_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "made-top", "Made_Middle[fast]>=1", 'made-absent; python_version < "3"')
    install(tmp_path, "made-middle", 'made-fast; extra == "fast"', 'made-absent; extra == "slow"', "made-top")
    install(tmp_path, "made-fast")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert dependency_names(["made-top"]) == ["made-fast", "made-middle", "made-top"]


def test_extra_that_is_asked_for_later_is_not_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "late-top", "late-base", "late-other")
    install(tmp_path, "late-base", 'late-extra; extra == "more"')
    install(tmp_path, "late-other", "late-base[more]")
    install(tmp_path, "late-extra")
    monkeypatch.syspath_prepend(str(tmp_path))
    for order in (["late-top"], ["late-other", "late-base"], ["late-base", "late-other"]):
        assert "late-extra" in dependency_names(order)
    assert "late-extra" not in dependency_names(["late-base"])


def test_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(NotFound, match="nowhere-to-be-found"):
        dependency_names(["nowhere-to-be-found>=1"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster(state_dir: Path, tarball: Path) -> AsyncIterator[Cluster]:
    cluster = await Cluster.up("imaged", state_dir, full=True)
    try:
        assert AGENT_IMAGE in await cluster.import_image(tarball)
        yield cluster
    finally:
        await cluster.down(delete=True)


async def run_to_end(cluster: Cluster, name: str, container: dict[str, object]) -> str:
    """What the container said, which had to end with 0; the kubelet refuses an image that would run as root."""
    hardened = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "agent",
                    "image": AGENT_IMAGE,
                    "imagePullPolicy": "Never",
                    "securityContext": hardened,
                    **container,
                }
            ],
        },
    }
    created = await kubectl(cluster.kubeconfig, "create", "-f", "-", stdin=json.dumps(pod).encode())
    assert created.code == 0, created.err
    done = await kubectl(
        cluster.kubeconfig,
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        f"pod/{name}",
        "--timeout=60s",
        timeout_s=90,
    )
    said = (await kubectl(cluster.kubeconfig, "logs", name)).out
    assert done.code == 0, said + (await kubectl(cluster.kubeconfig, "describe", "pod", name)).out
    return said


@pytest.mark.kubelab
@pytest.mark.full
@pytest.mark.asyncio(loop_scope="module")
async def test_agent_tells_its_usage_as_an_unprivileged_pod(cluster: Cluster) -> None:
    said = await run_to_end(cluster, "usage", {"args": ["run", "--help"]})
    assert "herdsman-agent" in said
    assert "--registration-token-file" in said


@pytest.mark.kubelab
@pytest.mark.full
@pytest.mark.asyncio(loop_scope="module")
async def test_every_library_loads_without_rights_and_on_a_read_only_root(cluster: Cluster) -> None:
    said = await run_to_end(cluster, "look", {"command": ["python", "-c", LOOK_AROUND]})
    user, group, refused, capabilities, local, libraries = json.loads(said)
    assert (user, group, capabilities) == (int(AGENT_USER), int(AGENT_USER), 0)
    assert refused == "EROFS"
    assert local in ("127.0.0.1", "::1")
    assert libraries > 50
