"""The stage `tools`: Debian packages that the integration tests need, installed where that is possible, named where it is not.

As root on Debian they are installed; elsewhere the tests that need one skip and say which. Python's own needs are in the lock file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from integration.kubelab.doctor import examine

_PROGRAMS = {
    "chromium": "chromium", "faketime": "faketime", "curl": "curl", "script": "bsdutils", "dpkg-deb": "dpkg", "nginx": "nginx",
    "haproxy": "haproxy", "/usr/lib/nginx/modules/ngx_stream_module.so": "libnginx-mod-stream",
    "tinyproxy": "tinyproxy-bin", "slapd": "slapd", "ldapmodify": "ldap-utils", "samba-tool": "samba", "samba": "samba-ad-dc",
    "/usr/share/samba/setup": "samba-ad-provision", "/usr/lib/x86_64-linux-gnu/samba/ldb": "samba-dsdb-modules",
}  # fmt: skip
"""Beside what a cluster with pods needs (`herdsman-kubelab doctor`): a program's name, or a file, and its package."""
_INSTALL_S = 900


def find_missing() -> list[str]:
    """Debian packages that are missing, sorted."""
    needed = {finding.package for finding in examine() if finding.package and not finding.ok}
    needed |= {package for what, package in _PROGRAMS.items() if not _is_there(what)}
    return sorted(needed)


def _is_there(what: str) -> bool:
    """Servers live in sbin, which is not on every PATH."""
    return Path(what).exists() or shutil.which(what) is not None or Path("/usr/sbin", what).exists()


def main() -> int:
    """Install what is missing; the exit code is that of the installation."""
    missing = find_missing()
    if not missing:
        sys.stdout.write("nothing is missing\n")
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.stdout.write(
            f"tests that need these will skip: {' '.join(missing)}; as root: apt-get install {' '.join(missing)}\n"
        )
        return 0
    sys.stdout.write(f"installing {' '.join(missing)}\n")
    sys.stdout.flush()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        done = subprocess.run(
            ["apt-get", *command], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=_INSTALL_S, check=False,
        )  # fmt: skip
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
