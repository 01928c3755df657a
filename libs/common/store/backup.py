"""Backup and restore of all buckets as one file: a tar of the server's snapshots and a manifest with their hashes.

`herdsman backup` and `herdsman restore` call this with the administration's credential. A restore checks the whole file before it
touches anything, and refuses to replace what is there unless told to.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from libs.common import errors
from libs.common.bus.jetstream_api import STREAM_NOT_FOUND, JetStreamApi, Refused
from libs.common.bus.snapshot import CHUNK_BYTES, put_back, take_snapshot
from libs.common.contracts.permissions import stream_of

P = ParamSpec("P")
T = TypeVar("T")
FORMAT = 1
MANIFEST = "manifest.json"
ORDER = ("authz", "project", "node_registry", "identity", "cluster_controller")
"""Buckets that refer to others come first, so that what they refer to is in the backup, too."""


class BackupPart(BaseModel):
    """One stream. `head` is its configuration and state as the server wants them back."""

    stream: str
    file: str
    size_bytes: int
    sha256: str
    head: dict[str, Any]


class Manifest(BaseModel):
    format: int = FORMAT
    made_at: datetime
    parts: list[BackupPart]


async def back_up(
    api: JetStreamApi, file: Path, now: Callable[[], datetime], buckets: Sequence[str] = ORDER
) -> Manifest:
    """Write all buckets to `file`, which appears only when it is complete (readable by its owner alone).

    Each bucket is consistent in itself. Raises Refused when a bucket is missing; Unavailable, Timeout.
    """
    manifest = Manifest(made_at=now(), parts=[])
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".backup-") as folder:
        for bucket in buckets:
            manifest.parts.append(await _save(api, stream_of(bucket), Path(folder)))
        fresh = Path(folder) / "complete"
        await _in_thread(_pack, fresh, Path(folder), manifest)
        fresh.replace(file)
    structlog.get_logger().info("backup_made", file=str(file), parts=len(manifest.parts), logger="backup")
    return manifest


async def restore(api: JetStreamApi, file: Path, *, replace: bool = False) -> Manifest:
    """Put all buckets of a backup back. With `replace` what is there is deleted first, bucket by bucket.

    Stop the services before. Raises Invalid when the file is damaged; Conflict when there is data and not `replace`.
    """
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".restore-") as folder:
        manifest = await _in_thread(_unpack, file, Path(folder))
        for part in manifest.parts:
            messages = await _count_messages(api, part.stream)
            if messages and not replace:
                raise errors.Conflict(
                    f"{part.stream} holds {messages} entries already: restore into an empty hub, or say that it may be replaced"
                )
        for part in manifest.parts:
            if await _count_messages(api, part.stream) is not None:
                await api.call(f"STREAM.DELETE.{part.stream}", timeout_s=10)
            await put_back(api, part.stream, part.head, _read(Path(folder) / part.file))
    structlog.get_logger().info("backup_restored", file=str(file), parts=len(manifest.parts), logger="backup")
    return manifest


def check_backup(file: Path) -> Manifest:
    """The manifest of a backup whose every byte was checked. Raises Invalid, Unavailable."""
    with tempfile.TemporaryDirectory(prefix=".check-") as folder:
        return _unpack(file, Path(folder))


async def _in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but when cancelled it waits for the thread: its folder must not vanish beneath it."""
    task = asyncio.create_task(asyncio.to_thread(work, *args, **kwargs), name="backup files")
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait({task})


async def _save(api: JetStreamApi, stream: str, folder: Path) -> BackupPart:
    target = folder / f"{stream}.snapshot"
    digest, size = hashlib.sha256(), 0
    async with take_snapshot(api, stream) as (head, chunks):
        with target.open("wb") as output:
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                await asyncio.to_thread(output.write, chunk)
    kept = {"config": head["config"], "state": head["state"]}
    return BackupPart(stream=stream, file=target.name, size_bytes=size, sha256=digest.hexdigest(), head=kept)


async def _count_messages(api: JetStreamApi, stream: str) -> int | None:
    """None when there is no such stream."""
    try:
        info = await api.call(f"STREAM.INFO.{stream}")
    except Refused as exc:
        if exc.code == STREAM_NOT_FOUND:
            return None
        raise
    return int(info["state"]["messages"])


async def _read(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
            yield chunk


def _pack(target: Path, folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    target.touch(mode=0o600)
    with tarfile.open(target, "w") as archive:
        for name in (MANIFEST, *(part.file for part in manifest.parts)):
            archive.add(folder / name, arcname=name, recursive=False)
    with target.open("rb") as written:
        os.fsync(written.fileno())


def _unpack(file: Path, folder: Path) -> Manifest:
    """Take the archive apart into `folder` and check every part. Only the names that the manifest lists are taken."""
    try:
        with tarfile.open(file, "r") as archive:
            manifest = _parse_manifest(archive, file)
            for part in manifest.parts:
                _extract(archive, part, folder / part.file, file)
    except OSError as exc:
        raise errors.Unavailable(f"cannot read the backup {file}: {exc}") from exc
    except (tarfile.TarError, KeyError) as exc:
        raise errors.Invalid(f"{file} is no complete backup: {exc}") from exc
    return manifest


def _parse_manifest(archive: tarfile.TarFile, file: Path) -> Manifest:
    member = archive.extractfile(MANIFEST)
    if member is None:
        raise errors.Invalid(f"{file} is no backup: it has no manifest")
    try:
        described = json.loads(member.read())
        if described.get("format") != FORMAT:
            raise errors.Invalid(f"{file} is a backup of format {described.get('format')}; this version reads {FORMAT}")
        manifest = Manifest.model_validate(described)
    except (ValueError, AttributeError, ValidationError) as exc:
        raise errors.Invalid(f"the manifest of {file} cannot be read") from exc
    if any(Path(part.file).name != part.file for part in manifest.parts):
        raise errors.Invalid(f"the manifest of {file} names files outside of it")
    return manifest


def _extract(archive: tarfile.TarFile, part: BackupPart, target: Path, file: Path) -> None:
    member = archive.extractfile(part.file)
    if member is None:
        raise errors.Invalid(f"{file} lacks {part.file}")
    digest = hashlib.sha256()
    with target.open("wb") as output:
        while chunk := member.read(CHUNK_BYTES):
            digest.update(chunk)
            output.write(chunk)
    if digest.hexdigest() != part.sha256 or target.stat().st_size != part.size_bytes:
        raise errors.Invalid(f"{part.file} in {file} is damaged: take another backup")
