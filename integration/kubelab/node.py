"""The enclosure of a full cluster's node: mount and network namespaces and control groups of its own.

Everything a node leaves behind on an ordinary machine (mounts, bridges, firewall rules, /var/lib/kubelet, shims) exists
only inside, and the kernel removes it when the last process in it ended. Used by `run`; needs root.

  this machine                       node
  hk<id>  <host ip>/30  ──veth──  eth0  <node ip>/30,  cni0 <pods>/24
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from integration.kubelab.addresses import Subnet
from integration.kubelab.cgroups import ClusterGroups
from integration.kubelab.components import Settings
from integration.kubelab.node_config import CONTAINERD_SOCKET, render_node_files
from integration.kubelab.paths import Layout, write_private
from libs.common.errors import Timeout, Unavailable
from libs.common.processes import ProcessId, dies_with_parent

# $1 is the cluster's folder, $2 the node's address, $3 this machine's. The folder is held open and put back at its
# place at the end, because it may lie below one of the paths that are covered here.
_MAKE_NODE = """
exec 9<"$1"
mount --make-rprivate /
mount -t tmpfs -o mode=0755 kubelab /run
mkdir -p /run/kubelab/lib.upper /run/kubelab/lib.work /run/kubelab/log.upper /run/kubelab/log.work /run/netns
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/kubelab/lib.upper,workdir=/run/kubelab/lib.work kubelab /var/lib
mount -t overlay -o lowerdir=/var/log,upperdir=/run/kubelab/log.upper,workdir=/run/kubelab/log.work kubelab /var/log
mkdir -p "$1" /var/lib/kubelet /var/log/pods
mount --bind /proc/self/fd/9 "$1"
mkdir -p "$1/node/containerd" "$1/node/kubelet" "$1/node/pod-logs"
mount --bind "$1/node/kubelet" /var/lib/kubelet
mount --bind "$1/node/pod-logs" /var/log/pods
mount --make-rshared /
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo enclosed
read -r linked
ip address add "$2/30" dev eth0
ip link set eth0 up
ip route add default via "$3"
echo connected
read -r adopted
"""


class Node:
    """The namespaces, held open by this process: they outlive any single process in them, and end with the last."""

    def __init__(self, layout: Layout, subnet: Subnet, mount_fd: int, net_fd: int) -> None:
        self.layout = layout
        self.subnet = subnet
        self.groups = ClusterGroups(layout.instance_id)
        self._mount_fd = mount_fd
        self._net_fd = net_fd

    @classmethod
    async def create(cls, settings: Settings) -> Node:
        assert settings.subnet is not None
        _check_root()
        layout, subnet = settings.layout, settings.subnet
        await remove_leftovers(layout)
        _write_files(settings)
        ClusterGroups(layout.instance_id).create()
        process = await asyncio.create_subprocess_exec(
            "unshare", "--mount", "--net", "sh", "-euc", _MAKE_NODE, "make-node", str(layout.root), subnet.node_ip, subnet.host_ip,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            preexec_fn=dies_with_parent(signal.SIGKILL),
        )  # fmt: skip
        try:
            async with asyncio.timeout(15):
                await _expect(process, b"enclosed\n")
                await _link_up(layout, subnet, process.pid)
                await _answer(process, b"linked\n")
                await _expect(process, b"connected\n")
            node = cls(layout, subnet, *_open_namespaces(process.pid))
            await _answer(process, b"adopted\n")
            await process.wait()
        except TimeoutError as error:
            raise Timeout("the node's namespaces were not made within 15 s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return node

    def enter(self, argv: Sequence[str]) -> tuple[str, ...]:
        """The command that runs `argv` in the node. nsenter replaces itself, so the pid is that of the program."""
        own = f"/proc/{os.getpid()}/fd"
        return ("nsenter", f"--mount={own}/{self._mount_fd}", f"--net={own}/{self._net_fd}", "--", *argv)

    async def close(self) -> None:
        """Ends every process in the node, then lets go of the namespaces; with them all their mounts vanish."""
        os.close(self._mount_fd)
        os.close(self._net_fd)
        await remove_leftovers(self.layout)


async def remove_leftovers(layout: Layout) -> None:
    """Ends what a killed run left of this cluster's node. Nothing to do, nothing done; safe without root."""
    groups = ClusterGroups(layout.instance_id)
    await groups.kill()
    await groups.remove()
    link = link_name(layout)
    if _has_link(link):
        with contextlib.suppress(Unavailable):  # the kernel removes it too, a moment after the namespace ended
            await run_program("ip", "link", "delete", link)
    deadline = time.monotonic() + 5
    while _has_link(link):
        if time.monotonic() > deadline:
            raise Unavailable(f'cannot remove the network link {link}: try "ip link delete {link}"')
        await asyncio.sleep(0.05)


def link_name(layout: Layout) -> str:
    return f"hk{layout.instance_id}"


def _has_link(name: str) -> bool:
    return Path(f"/sys/class/net/{name}").exists()


async def containerd_client(
    enter: Sequence[str], *arguments: str, stdin: IO[bytes] | None = None, timeout_s: float = 120.0
) -> str:
    """Runs containerd's own client in the node that `enter` leads into."""
    return await run_program(
        *enter,
        "ctr",
        "--address",
        CONTAINERD_SOCKET,
        "--namespace",
        "k8s.io",
        *arguments,
        stdin=stdin,
        timeout_s=timeout_s,
    )


def enter_by_pid(containerd: ProcessId) -> tuple[str, ...]:
    """For other processes than the supervisor: the way into the node through its containerd."""
    return ("nsenter", f"--target={containerd.pid}", "--mount", "--net", "--")


async def run_program(*command: str, stdin: IO[bytes] | None = None, timeout_s: float = 15.0) -> str:
    """Output of a short-lived program; its own words in the error when it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin or asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise Timeout(f"{' '.join(command)} did not end within {timeout_s:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = errors.decode(errors="replace").strip().splitlines()
        raise Unavailable(f"{' '.join(command)} failed: {words[-1] if words else f'code {process.returncode}'}")
    return output.decode(errors="replace")


def _check_root() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unavailable(
            "a full cluster needs Linux and root, for namespaces and containers; without --full neither is needed"
        )


def _write_files(settings: Settings) -> None:
    settings.layout.node.mkdir(mode=0o700, exist_ok=True)
    for name, content in render_node_files(settings, _snapshotter(settings.layout.root)).items():
        path = settings.layout.config / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(path, content)


def _snapshotter(folder: Path) -> str:
    """overlayfs, unless the folder itself lies on one, as it does in a container: those can't be stacked."""
    best: tuple[int, str] = (-1, "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, tail = line.partition(" - ")
        point = Path(mount.split(" ")[4])
        if folder.is_relative_to(point):
            best = max(best, (len(point.parts), tail.split(" ", 1)[0]))
    return "native" if best[1] == "overlay" else "overlayfs"


async def _link_up(layout: Layout, subnet: Subnet, pid: int) -> None:
    link = link_name(layout)
    await run_program("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    await run_program("ip", "address", "add", f"{subnet.host_ip}/30", "dev", link)
    await run_program("ip", "link", "set", link, "up")
    await run_program("ip", "route", "add", subnet.pods, "via", subnet.node_ip, "dev", link)


def _open_namespaces(pid: int) -> tuple[int, int]:
    return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)


async def _expect(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    if await process.stdout.readline() != line:
        words = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
        raise Unavailable(f"cannot make the node's namespaces: {words[-1] if words else 'no reason given'}")


async def _answer(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    await process.stdin.drain()
