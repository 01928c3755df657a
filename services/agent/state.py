"""What survives a restart of the agent: who it is, and the last desired set. `FileState` for a plain process, `SecretState` for a pod."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import gzip
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from libs.common import errors
from libs.common.kube.client import KubeClient
from services.agent.owned import AGENT_PART, MANAGED_BY, MANAGED_BY_US, PART

IDENTITY = "identity"
DESIRED = "desired"
SECRET_LIMIT_BYTES = 900_000
"""A Kubernetes object holds 1 MiB; a desired set that is larger even when packed is fetched again after a restart."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the agent is to the hub. `seed` never leaves the cluster; `jwt` is worth nothing without it."""

    seed: str
    public_key: str
    jwt: str
    cluster: str
    cluster_uid: str
    expires_at: str
    """RFC 3339."""
    renew_after_s: int
    token_digest: str
    """SHA-256 of the registration token that was exchanged: another one in its place asks for a new registration."""
    hub_ca: str = ""
    """The hub's certificate authorities as the hub last told them, PEM; "" = those that the agent was given."""
    given_ca: str = ""
    """Digest of what the agent was given when it took over `hub_ca`: given something else since, that counts."""

    def __repr__(self) -> str:
        return f"Identity(cluster={self.cluster!r}, cluster_uid={self.cluster_uid!r}, public_key={self.public_key!r})"


@dataclass(slots=True)
class Kept:
    """The desired set as last fetched. `kinds` are all kinds ever applied: where to look when something must go."""

    parts: dict[str, tuple[str, list[dict[str, Any]]]] = field(default_factory=dict)
    """Part name → (hash, objects)."""
    kinds: list[tuple[str, str]] = field(default_factory=list)
    detach: bool = False


class State(Protocol):
    """One agent's memory. Writes are atomic; `save_*` raise Conflict when somebody else wrote meanwhile."""

    async def load_identity(self) -> Identity | None: ...
    async def save_identity(self, identity: Identity) -> None: ...
    async def load_kept(self) -> Kept: ...
    async def save_kept(self, kept: Kept) -> None: ...

    async def delete(self) -> None:
        """Forget everything, after detaching."""
        ...


def pack_kept(kept: Kept) -> bytes:
    parts = {name: {"hash": hash_, "objects": objects} for name, (hash_, objects) in kept.parts.items()}
    text = json.dumps({"parts": parts, "kinds": kept.kinds, "detach": kept.detach}, separators=(",", ":"))
    return gzip.compress(text.encode(), 6, mtime=0)


def parse_kept(data: bytes) -> Kept:
    """Anything that cannot be read is as good as nothing: the hub has it all."""
    try:
        document = json.loads(gzip.decompress(data))
        parts = {name: (part["hash"], part["objects"]) for name, part in document["parts"].items()}
        return Kept(parts, [(a, k) for a, k in document["kinds"]], bool(document["detach"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return Kept()


def parse_identity(data: bytes, where: str) -> Identity:
    """Raises Invalid: a damaged identity must be looked at by a person, not be replaced silently."""
    try:
        return Identity(**json.loads(data))
    except (ValueError, TypeError) as exc:
        raise errors.Invalid(
            f"the agent's identity in {where} is damaged: delete it and register with a fresh token"
        ) from exc


class FileState:
    """Files of mode 0600 in one folder, replaced atomically; a lock keeps a second agent out of the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise errors.Invalid(f"cannot use the state folder {folder}: {exc.strerror}") from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock)
            raise errors.Conflict(
                f"another agent runs with the state folder {folder}: stop it or give this one its own"
            ) from exc

    async def load_identity(self) -> Identity | None:
        data = await asyncio.to_thread(self._read, IDENTITY)
        return None if data is None else parse_identity(data, str(self._folder / IDENTITY))

    async def save_identity(self, identity: Identity) -> None:
        await asyncio.to_thread(self._write, IDENTITY, json.dumps(asdict(identity)).encode())

    async def load_kept(self) -> Kept:
        data = await asyncio.to_thread(self._read, DESIRED)
        return Kept() if data is None else parse_kept(data)

    async def save_kept(self, kept: Kept) -> None:
        await asyncio.to_thread(self._write, DESIRED, pack_kept(kept))

    async def delete(self) -> None:
        for name in (DESIRED, IDENTITY):
            (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another agent have the folder."""
        os.close(self._lock)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise errors.Unavailable(f"cannot read {self._folder / name}: {exc.strerror}") from exc

    def _write(self, name: str, data: bytes) -> None:
        target, fresh = self._folder / name, self._folder / f".{name}.new"
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123 - an open descriptor has no path
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(target)
        except OSError as exc:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise errors.Unavailable(f"cannot write {target}: {exc.strerror}") from exc


class SecretState:
    """Two Secrets in the pod's namespace, written by compare-and-set on what this process last saw."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._client = client
        self._collection = f"/api/v1/namespaces/{namespace}/secrets"
        self._where = f'Secret "{namespace}/{name}"'
        self._names = {IDENTITY: name, DESIRED: f"{name}-desired"}
        self._versions: dict[str, str] = {}

    async def load_identity(self) -> Identity | None:
        data = await self._read(IDENTITY)
        return None if data is None else parse_identity(data, self._where)

    async def save_identity(self, identity: Identity) -> None:
        await self._write(IDENTITY, json.dumps(asdict(identity)).encode())

    async def load_kept(self) -> Kept:
        data = await self._read(DESIRED)
        return Kept() if data is None else parse_kept(data)

    async def save_kept(self, kept: Kept) -> None:
        data = pack_kept(kept)
        if len(data) > SECRET_LIMIT_BYTES:
            data = pack_kept(Kept({}, kept.kinds, kept.detach))
        await self._write(DESIRED, data)

    async def delete(self) -> None:
        for name in (DESIRED, IDENTITY):
            await self._client.delete(f"{self._collection}/{self._names[name]}")

    async def _read(self, key: str) -> bytes | None:
        try:
            secret = await self._client.get(f"{self._collection}/{self._names[key]}")
        except errors.NotFound:
            self._versions.pop(key, None)
            return None
        self._versions[key] = str(secret["metadata"]["resourceVersion"])
        data = (secret.get("data") or {}).get(key)
        return None if data is None else base64.b64decode(data)

    async def _write(self, key: str, data: bytes) -> None:
        metadata: dict[str, Any] = {
            "name": self._names[key],
            "labels": {MANAGED_BY: MANAGED_BY_US, PART: AGENT_PART},
        }
        secret = {
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque",
            "data": {key: base64.b64encode(data).decode("ascii")},
        }  # fmt: skip
        if key in self._versions:
            metadata["resourceVersion"] = self._versions[key]
            answer = await self._client.replace(f"{self._collection}/{self._names[key]}", secret)
        else:
            answer = await self._client.create(self._collection, secret)
        self._versions[key] = str(answer["metadata"]["resourceVersion"])
