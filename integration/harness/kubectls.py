"""Every kubectl that can be had: the wheel's, the machine's, Debian's old one, and those that HERDSMAN_KUBECTLS names.

Debian's is fetched by apt and unpacked into the cache: nothing of the machine is replaced by it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

from integration.kubelab.paths import cache_dir
from libs.common.errors import NotFound

PACKAGE = "kubernetes-client"
FETCH_S = 180.0


def find_kubectls() -> list[Path]:
    """The wheel's first, then the one on the PATH with its versioned siblings, then those named (colon-separated)."""
    found = [Path(sys.executable).parent / "kubectl"]
    if (on_path := shutil.which("kubectl")) is not None:
        real = Path(on_path).resolve()
        siblings = sorted(real.parent.glob("kubectl.1.*"))
        found += siblings or [real]
    found += [Path(part) for part in os.environ.get("HERDSMAN_KUBECTLS", "").split(":") if part]
    return [path for path in dict.fromkeys(found) if path.exists()]


async def fetch_debian_kubectl() -> Path:
    """Debian's kubectl from the cache, brought there on first use. Raises NotFound that says why it can't be had."""
    kept = cache_dir().parent / "kubectls" / f"debian-{PACKAGE}"
    if kept.exists():
        return kept
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise NotFound(f"{program} is missing: name an old kubectl in HERDSMAN_KUBECTLS instead")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as name:
        folder = Path(name)
        await _run(folder, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE)
        packages = sorted(name for name in os.listdir(folder) if name.endswith(".deb"))  # noqa: PTH208 - one folder, ours
        if not packages:
            raise NotFound(
                f"apt-get download {PACKAGE} brought nothing: apt-get update, or name one in HERDSMAN_KUBECTLS"
            )
        await _run(folder, "dpkg-deb", "-x", packages[-1], "unpacked")
        unpacked = folder / "unpacked" / "usr" / "bin" / "kubectl"
        if not unpacked.exists():
            raise NotFound(f"Debian's package {PACKAGE} holds no kubectl: name one in HERDSMAN_KUBECTLS")
        unpacked.replace(kept)
    return kept


async def _run(folder: Path, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(FETCH_S):
            out, _ = await process.communicate()
    except TimeoutError as exc:
        raise NotFound(f"{' '.join(command)} did not end in {FETCH_S:.0f} s: is the package source reachable?") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise NotFound(f"{' '.join(command)} failed: {' '.join(out.decode(errors='replace').split())[-300:]}")
