"""One file with everything that a hub is: its store, keys, certificates. Used by `herdsman backup` and `herdsman restore`.

Made while the hub is stopped, so it is one moment of all buckets. A tar of the folder's lasting parts, closed by a manifest
with the SHA-256 of each file: one that was cut short has no manifest, one that was damaged does not match it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.common import errors
from services.cli.files import explain_os_error
from services.cli.up.layout import Layout
from services.cli.up.record import RunLock, is_running

_LASTING = ("nats", "keys", "pki", "agent", "audit", "admin-password", "ports.json", "local-cluster.json")
_MANIFEST = "manifest.json"
_FORMAT = 1


def write_archive(layout: Layout, target: Path) -> int:
    """Save a stopped hub; returns how many files. Raises NotFound, Conflict while it runs, Unavailable when there is no room."""
    if not layout.nats_store.is_dir() or not any(layout.nats_store.iterdir()):
        raise errors.NotFound(f"{layout.root} holds no hub: name its folder with --data-dir")
    lock = RunLock(layout)
    lock.acquire()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            with tarfile.open(fileobj=output, mode="w:gz", compresslevel=3) as archive:
                count = _fill(layout, archive)
            output.flush()
            os.fsync(output.fileno())
        partial.replace(target)
    except OSError as error:
        raise explain_os_error("write", target, error) from error
    finally:
        partial.unlink(missing_ok=True)
        lock.release()
    return count


def _fill(layout: Layout, archive: tarfile.TarFile) -> int:
    sums: dict[str, str] = {}
    for file in _lasting_files(layout.root):
        name = str(file.relative_to(layout.root))
        archive.add(file, name, recursive=False)
        sums[name] = _digest(file)
    manifest = {"format": _FORMAT, "created": datetime.now(UTC).isoformat(timespec="seconds"), "files": sums}
    content = json.dumps(manifest).encode()
    member = tarfile.TarInfo(_MANIFEST)
    member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(content))
    return len(sums)


def _lasting_files(root: Path) -> Iterator[Path]:
    for part in _LASTING:
        start = root / part
        if start.is_file():
            yield start
        elif start.is_dir():
            yield from sorted(file for file in start.rglob("*") if file.is_file())


def read_archive(layout: Layout, source: Path, *, replace: bool) -> Path | None:
    """Bring a hub back into its folder; returns where an old one was moved to. Nothing is touched unless all of it is sound.

    Raises Conflict when the folder holds a hub already (unless `replace`) or one that runs, Invalid for a damaged file.
    """
    occupied = layout.root.is_dir() and any(layout.root.iterdir())
    if occupied and is_running(layout):
        raise errors.Conflict(f"the hub in {layout.root} runs: stop it first")
    if occupied and not replace:
        raise errors.Conflict(
            f"{layout.root} holds a hub already: add --replace to move it aside, or name another folder with --data-dir"
        )
    try:
        layout.root.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{layout.root.name}.", dir=layout.root.parent))
    except OSError as error:
        raise explain_os_error("write", layout.root.parent, error) from error
    try:
        _unpack(source, staging)
        aside: Path | None = None
        if occupied:
            aside = layout.root.with_name(
                f"{layout.root.name}.before-restore-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
            )
            layout.root.rename(aside)
        staging.replace(layout.root)
    except OSError as error:
        raise explain_os_error("restore into", layout.root, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return aside


def _unpack(source: Path, folder: Path) -> None:
    try:
        with tarfile.open(source, "r:gz") as archive:
            archive.extractall(folder, filter="data")
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
    except FileNotFoundError as error:
        missing = source if not source.exists() else f"the manifest of {source}, which was cut short"
        raise errors.Invalid(f"cannot find {missing}: use another backup") from error
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise errors.Invalid(f"{source} cannot be read as a backup ({error}): use another one") from error
    if manifest.get("format") != _FORMAT:
        raise errors.Invalid(f"{source} was made by another version of Herdsman: restore it with that one")
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file() or _digest(folder / name) != digest:
            raise errors.Invalid(f"{source} is damaged at {name}: use another backup")
    (folder / _MANIFEST).unlink()


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
