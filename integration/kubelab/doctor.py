"""What this machine lacks for each kind of cluster, with the command that gets it.

Called by `herdsman-kubelab doctor`; nothing here changes the machine.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from integration.kubelab import binaries, cgroups, images, node_config
from libs.common.errors import HerdsmanError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a cluster needs. `needed_by` is `all` or `full`; `package` is Debian's, where one provides it."""

    what: str
    ok: bool
    detail: str
    needed_by: str
    package: str = ""


_PROGRAMS = {
    "containerd": "containerd", "ctr": "containerd", "containerd-shim-runc-v2": "containerd", "runc": "runc",
    "ip": "iproute2", "nft": "nftables", "iptables": "iptables", "conntrack": "conntrack", "mount": "mount",
    "unshare": "util-linux", "nsenter": "util-linux",
}  # fmt: skip


def examine() -> list[Finding]:
    """Every finding, good ones included, in the order in which a person would put things right."""
    findings = [
        Finding("Linux", sys.platform == "linux", sys.platform, "all"),
        _attempt("programs of a plain cluster", lambda: binaries.find(binaries.PLAIN).origin, "all"),
        _attempt("programs of a full cluster", lambda: binaries.find(binaries.FULL).origin, "full"),
        Finding("root", os.geteuid() == 0, f"user id {os.geteuid()}", "full"),
    ]
    for program, package in _PROGRAMS.items():
        path = shutil.which(program)
        findings.append(Finding(program, path is not None, path or "missing", "full", package))
    findings.append(
        _attempt("pod-network plug-ins", lambda: str(node_config.cni_folder()), "full", "containernetworking-plugins")
    )
    findings.append(_attempt("static busybox", lambda: str(images.find_busybox()), "full", "busybox-static"))
    findings.append(
        _attempt("control groups", lambda: str(cgroups.ClusterGroups("probe").system.parent.parent), "full")
    )
    overlay = "overlay" in Path("/proc/filesystems").read_text().split()
    findings.append(
        Finding("overlay file system", overlay, "in the kernel" if overlay else "not in the kernel", "full")
    )
    return findings


def remedy(findings: list[Finding]) -> str | None:
    """The one command that installs what is missing on Debian and its kin; None if no package would help."""
    packages = sorted({finding.package for finding in findings if not finding.ok and finding.package})
    if not packages:
        return None
    prefix = "" if os.geteuid() == 0 else "sudo "
    return f"{prefix}apt-get install --no-install-recommends {' '.join(packages)}"


def _attempt(what: str, look: Callable[[], str], needed_by: str, package: str = "") -> Finding:
    try:
        return Finding(what, True, look(), needed_by, package)
    except HerdsmanError as error:
        return Finding(what, False, error.message, needed_by, package)
