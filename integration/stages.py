"""The stages of `make test`, each timed: `python -m integration.stages lint types …`. Stops at the first that fails.

The everyday stages come first. `tools` installs Debian packages where it may, `kubelab` finds or builds the Kubernetes binaries (cached outside the checkout by the hash of
their sources); `integration` uses them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CODE = ("libs", "services", "integration", "tests", "bench")


def _run(*command: str | Path, timeout_s: float = 3600) -> int:
    return subprocess.run([str(c) for c in command], cwd=ROOT, check=False, timeout=timeout_s).returncode


def lint() -> int:
    return _run(BIN / "ruff", "check", *CODE) or _run(BIN / "ruff", "format", "--check", *CODE)


def types() -> int:
    return _run(BIN / "mypy")


def imports() -> int:
    return _run(BIN / "lint-imports")


def generated() -> int:
    return _run(sys.executable, "-m", "libs.common.generator", "proto", "--check")


def hermetic() -> int:
    return _run(BIN / "pytest", "tests", timeout_s=1500)


def tools() -> int:
    return _run(sys.executable, "-m", "integration.tools")


def kubelab() -> int:
    return _run(BIN / "herdsman-kubelab", "build")


def integration() -> int:
    return _run(BIN / "pytest", "integration", "--durations=15")


STAGES: dict[str, Callable[[], int]] = {
    stage.__name__: stage for stage in (lint, types, imports, generated, hermetic, tools, kubelab, integration)
}


def main(names: list[str]) -> int:
    """Run the named stages in order; returns the first exit code that is not 0."""
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        sys.stderr.write(f"usage: python -m integration.stages {' '.join(f'[{name}]' for name in STAGES)}\n")
        return 2
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "")
    times: list[tuple[str, float]] = []
    for name in names:
        sys.stdout.write(f"── {name} ──\n")
        sys.stdout.flush()
        began = time.monotonic()
        code = STAGES[name]()
        times.append((name, time.monotonic() - began))
        if code:
            sys.stdout.write(f"── {name} failed after {times[-1][1]:.1f} s ──\n")
            return code
        sys.stdout.write(f"── {name} passed in {times[-1][1]:.1f} s ──\n")
    sys.stdout.write("".join(f"{name:<12} {seconds:8.1f} s\n" for name, seconds in times))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
