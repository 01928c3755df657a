"""Go programs that tests drive beside kubectl, built once for each version of their source and kept in the user's cache.

`TEST_PROGRAMS` is Kubernetes' sample of an aggregated API server and a small controller of client-go's parts: with Kubelab's own build
cache it links in a few seconds. `HELM` is the real helm, from its module.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from integration.kubelab.paths import cache_dir
from integration.kubelab.toolchain import fetch_go, find_go, go_environment
from libs.common.errors import Unavailable

_HERE = Path(__file__).parent
_BUILD_S = 1800


@dataclass(frozen=True, slots=True)
class GoProgram:
    """`folder` is a Go module of ours with go.mod and go.sum; `package` is what of it, or of a module that it requires, is built."""

    name: str
    folder: Path
    package: str = "."

    def fingerprint(self) -> str:
        """What decides about a rebuild."""
        digest = hashlib.sha256(self.package.encode())
        for file in sorted([*self.folder.glob("*.go"), self.folder / "go.mod", self.folder / "go.sum"]):
            content = file.read_bytes()
            digest.update(f"{file.name} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:32]


TEST_PROGRAMS = GoProgram("testprograms", _HERE / "programs")
HELM = GoProgram("helm", _HERE / "helm", "helm.sh/helm/v4/cmd/helm")


def find_program(program: GoProgram) -> Path | None:
    """The finished build of the present source, or None."""
    path = _target(program)
    return path if path.is_file() else None


def build_program(program: GoProgram) -> Path:
    """The program, built if it is not there; it appears in the cache whole or not at all. Raises Unavailable."""
    if (found := find_program(program)) is not None:
        return found
    target = _target(program)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_file():
            return target
        go = find_go() or fetch_go(lambda _line: None)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as workspace:
            made = Path(workspace) / program.name
            done = subprocess.run(
                ["nice", "-n", "5", go, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", made, program.package],
                cwd=program.folder, env=go_environment(go), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=_BUILD_S, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise Unavailable(f"go build of {program.name} failed: {' | '.join(done.stderr.splitlines()[-3:])}")
            made.rename(target)
    return target


def _target(program: GoProgram) -> Path:
    return cache_dir().parent / "go-programs" / f"{program.name}-{program.fingerprint()}"
