"""Building Kubelab's one program with Go, once for each version of its source, into the cache.

Called by `herdsman-kubelab build`. The result appears in the cache by one rename, under a lock, after it has answered
for its version; a build that is cut leaves only a `.building-*` folder, which the next build removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from integration.kubelab.binaries import FULL, PLAIN, PROGRAM, RECORD, SOURCE, cache_entry, cached, find, source_hash
from integration.kubelab.paths import cache_dir
from integration.kubelab.toolchain import fetch_go, find_go, go_environment, read_version
from libs.common.errors import NotFound, Unavailable
from libs.common.processes import dies_with_parent

_PROGRESS_EVERY_S = 10.0
_STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")

Say = Callable[[str], None]


def build(say: Say) -> Path:
    """The cache folder with the programs; builds them if they are not there. `say` receives progress lines."""
    if (entry := cached()) is not None:
        return entry
    go = find_go() or fetch_go(say)
    version = read_version(go)
    entry = cache_entry(version)
    with _lock(say):
        if (entry / PROGRAM).is_file():
            return entry
        for leftover in cache_dir().glob(".building-*"):
            shutil.rmtree(leftover)
        workspace = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_dir()))
        try:
            started = time.monotonic()
            _compile(go, workspace / PROGRAM, say, started)
            _finish(workspace, version)
            workspace.rename(entry)
            say(f"[{_elapsed(started)}] built {entry / PROGRAM}")
        finally:
            if workspace.exists():
                shutil.rmtree(workspace)
    return entry


def describe() -> tuple[bool, str]:
    """Whether a cluster's programs are there, and a sentence about them for a person."""
    try:
        found = find(PLAIN)
    except NotFound as absent:
        return False, f"{absent} (about 5 to 15 minutes, once)"
    return True, f"Kubernetes' programs come from {found.origin}"


def kubernetes_version(source: Path = SOURCE) -> str:
    """The pinned release, such as `v1.36.3`."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\d+\.\d+\.\d+)$", (source / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise Unavailable(f"{source / 'go.mod'} does not require a release of k8s.io/kubernetes")
    return found[1]


def link_flags(version: str, build_date: str) -> str:
    """What makes the programs tell their real version. The module proxy does not hand out the commit, so it stays empty."""
    major, minor, _ = version.removeprefix("v").split(".")
    stamp = {
        "gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitCommit": "", "gitTreeState": "archive",
        "buildDate": build_date,
    }  # fmt: skip
    return " ".join(
        ["-s", "-w", *(f"-X {package}.{key}={value}" for package in _STAMPED for key, value in stamp.items())]
    )


@contextmanager
def _lock(say: Say) -> Iterator[None]:
    """One build at a time; the kernel releases the lock when its holder dies."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _release_date(go: Path, version: str) -> str:
    """The release's own date, so that the same source gives the same program on every day."""
    done = subprocess.run(
        [go, "mod", "download", "-json", f"k8s.io/kubernetes@{version}"], cwd=SOURCE, env=go_environment(go),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise Unavailable(
            f"cannot download k8s.io/kubernetes {version}: {_last_line(done.stderr or done.stdout)}; see GOPROXY"
        )
    info = json.loads(Path(json.loads(done.stdout)["Info"]).read_text())
    return str(info["Time"])


def _compile(go: Path, target: Path, say: Say, started: float) -> None:
    version = kubernetes_version()
    say(f"[{_elapsed(started)}] building Kubernetes {version}: 5 to 15 minutes when the Go build cache is cold")
    flags = link_flags(version, _release_date(go, version))
    options = ["-v", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(target)]
    command = ["nice", "-n", "5", str(go), "build", *options, "."]
    process = subprocess.Popen(
        command, cwd=SOURCE, env=go_environment(go), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, preexec_fn=dies_with_parent(signal.SIGTERM),
    )  # fmt: skip
    try:
        output = _follow(process, say, started)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # a group of its own: go and the compilers that it started
            process.wait(timeout=30)
    if process.returncode != 0:
        raise Unavailable(f"go build failed with code {process.returncode}: {' | '.join(output[-3:]) or 'no output'}")


def _follow(process: subprocess.Popen[bytes], say: Say, started: float) -> list[str]:
    """Reads what go prints until it ends, and reports every few seconds how far it is."""
    assert process.stdout is not None
    lines: list[str] = []
    rest = b""
    next_report = time.monotonic() + _PROGRESS_EVERY_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=max(0.1, next_report - time.monotonic())):
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    break
                *complete, rest = (rest + chunk).split(b"\n")
                lines += [line.decode(errors="replace") for line in complete]
            if time.monotonic() >= next_report:
                say(f"[{_elapsed(started)}] {len(lines)} packages compiled, last {lines[-1] if lines else '-'}")
                next_report = time.monotonic() + _PROGRESS_EVERY_S
    process.wait()
    return [*lines, rest.decode(errors="replace")] if rest else lines


def _finish(workspace: Path, version: str) -> None:
    """Names for the components, proof that the program works, and what it was made from."""
    for name in FULL:
        (workspace / name).symlink_to(PROGRAM)
    done = subprocess.run(
        [workspace / "kube-apiserver", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    if done.stdout.strip() != f"Kubernetes {kubernetes_version()}":
        raise Unavailable(
            f"the built program says {(done.stdout or done.stderr).strip()!r} instead of Kubernetes {kubernetes_version()}"
        )
    (workspace / RECORD).write_text(
        json.dumps({"source": source_hash(), "go": version, "kubernetes": kubernetes_version()})
    )


def _elapsed(started: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    return f"{minutes}m{seconds:02d}s"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]
