"""The small decisions: addresses, program search, the proof that a process is ours, the flags of components."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from integration.kubelab import addresses, binaries, build, cgroups
from integration.kubelab.binaries import Binaries
from integration.kubelab.components import PORT_NAMES, Settings, render_components
from integration.kubelab.paths import Layout, cache_dir
from libs.common.errors import Invalid, NotFound
from libs.common.processes import ProcessId


def test_ports_are_remembered_and_distinct(tmp_path: Path) -> None:
    first = addresses.ensure_ports(tmp_path / "ports.json", PORT_NAMES)
    assert len(set(first.values())) == len(PORT_NAMES)
    assert addresses.ensure_ports(tmp_path / "ports.json", PORT_NAMES) == first


def test_taken_port_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    first = addresses.ensure_ports(tmp_path / "ports.json", ["a", "b"])
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["a"]))
        other.listen(1)
        second = addresses.ensure_ports(tmp_path / "ports.json", ["a", "b"])
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]


def test_clusters_get_subnets_of_their_own(tmp_path: Path) -> None:
    one = addresses.ensure_subnet(tmp_path / "1.json", "aaaaaaaa")
    two = addresses.ensure_subnet(tmp_path / "2.json", "bbbbbbbb")
    assert not one.network.overlaps(two.network)
    assert one.host_ip.rsplit(".", 1)[0] == one.node_ip.rsplit(".", 1)[0]
    assert addresses.ensure_subnet(tmp_path / "1.json", "cccccccc") == one


def test_taken_subnet_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = addresses.ensure_subnet(tmp_path / "1.json", "aaaaaaaa")
    monkeypatch.setattr(addresses, "_routes", lambda: [one.network])
    assert not addresses.ensure_subnet(tmp_path / "1.json", "aaaaaaaa").network.overlaps(one.network)


def make_programs(folder: Path, names: tuple[str, ...]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


def test_explicit_folder_wins_over_path(tmp_path: Path) -> None:
    assets = make_programs(tmp_path / "assets", binaries.MINIMAL)
    path = make_programs(tmp_path / "path", binaries.MINIMAL)
    found = binaries.find(binaries.MINIMAL, {"KUBEBUILDER_ASSETS": str(assets), "PATH": str(path)})
    assert found["etcd"] == assets / "etcd"


def test_incomplete_folder_is_passed_over_as_a_whole(tmp_path: Path) -> None:
    assets = make_programs(tmp_path / "assets", ("etcd",))
    path = make_programs(tmp_path / "path", binaries.MINIMAL)
    found = binaries.find(binaries.MINIMAL, {"KUBEBUILDER_ASSETS": str(assets), "PATH": str(path)})
    assert found["etcd"] == path / "etcd"


def test_nothing_found_says_what_is_missing_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDSMAN_CACHE_DIR", str(tmp_path / "cache"))
    path = make_programs(tmp_path / "path", ("etcd",))
    with pytest.raises(NotFound, match=r'PATH lacks kube-apiserver;.* run "herdsman-kubelab build"'):
        binaries.find(binaries.MINIMAL, {"PATH": str(path)})


def test_source_hash_changes_with_each_source_file(tmp_path: Path) -> None:
    for name in ("go.mod", "go.sum", "main.go"):
        (tmp_path / name).write_text("x")
    hashes = {binaries.source_hash(tmp_path)}
    for name in ("go.mod", "go.sum", "main.go"):
        (tmp_path / name).write_text("y")
        hashes.add(binaries.source_hash(tmp_path))
    assert len(hashes) == 4
    assert binaries.cache_entry("go1.26.1", tmp_path) != binaries.cache_entry("go1.26.2", tmp_path)


def test_a_build_of_the_same_source_is_found_whatever_go_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERDSMAN_CACHE_DIR", str(tmp_path))
    for name, source in (("old", "another"), ("new", binaries.source_hash())):
        make_programs(cache_dir().parent / name, (binaries.PROGRAM,)).rename(_made(cache_dir()) / name)
        (cache_dir() / name / binaries.RECORD).write_text(json.dumps({"source": source}))
    assert binaries.cached() == cache_dir() / "new"


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_link_flags_stamp_the_pinned_release() -> None:
    flags = build.link_flags(build.kubernetes_version(), "2026-01-01T00:00:00Z")
    assert f"-X k8s.io/component-base/version.gitVersion={build.kubernetes_version()}" in flags


def test_process_identity_ends_with_the_process() -> None:
    process = subprocess.Popen(["sleep", "60"])
    identity = ProcessId.current(process.pid)
    assert identity is not None
    assert ProcessId.from_json(identity.to_json()) == identity
    assert not ProcessId(process.pid, identity.start_ticks + 1).send(signal.SIGKILL)
    assert process.poll() is None, "a process with another start time must not be touched"
    assert identity.send(signal.SIGKILL)
    process.wait()
    assert not identity.alive
    assert not identity.send(signal.SIGKILL)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a/b", "..", "a" * 41])
def test_names_that_are_no_dns_labels_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        Layout.of(name, tmp_path)


def test_same_name_in_two_folders_is_two_instances(tmp_path: Path) -> None:
    assert Layout.of("a", tmp_path / "x").instance_id != Layout.of("a", tmp_path / "y").instance_id


def test_hierarchies_of_both_versions_are_found() -> None:
    mountinfo = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "40 31 0:37 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
        "42 31 0:39 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
    )
    assert cgroups.hierarchies(mountinfo) == {
        "pids": Path("/sys/fs/cgroup/pids"),
        "unified": Path("/sys/fs/cgroup/unified"),
    }


@pytest.mark.parametrize(("minimal", "full"), [(False, False), (True, False), (False, True)])
def test_everything_listens_on_loopback_or_the_link_only(tmp_path: Path, minimal: bool, full: bool) -> None:
    subnet = addresses.Subnet(next(iter(addresses._slot_order("aaaaaaaa")))) if full else None
    programs = Binaries({name: Path("/bin") / name for name in binaries.FULL}, "test")
    ports = dict(zip(PORT_NAMES, range(1000, 2000), strict=False))
    settings = Settings(Layout.of("a", tmp_path), programs, ports, subnet=subnet, minimal=minimal)
    components = render_components(settings)
    assert [component.name for component in components][:2] == ["etcd", "kube-apiserver"]
    allowed = {"127.0.0.1", subnet.host_ip if subnet else "127.0.0.1"}
    for component in components:
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in component.argv[1:])
        if "bind-address" in flags:
            assert flags["bind-address"] in allowed
        assert flags.get("profiling", "false") == "false"
