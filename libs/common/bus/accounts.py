"""NATS accounts and credentials in operator mode, made with `nkeys` alone: who may connect, as what, until when.

Accounts: SYS (the server's own), PLATFORM (services; all of JetStream), AGENTS (no JetStream; only imports of PLATFORM's exports).
Agents are signed by a scoped key whose template confines each JWT to the cluster that it is named after, so that signing one needs
no call and a leaked signing key can make agents but no service. Form of the claims: NATS JWT version 2.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nkeys

from libs.common.contracts import permissions
from libs.common.contracts.methods import SERVICES

_PREFIXES = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
_UNLIMITED = {"subs": -1, "data": -1, "payload": -1}
_SEEDS: Mapping[str, str] = {
    "operator": "operator", "sys": "account", "platform": "account", "agents": "account", "agents-signing": "account",
    "sys-user": "user", "administration": "user", **{f"service-{name}": "user" for name in SERVICES},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NatsKeys:
    """All seeds of one hub, by name (`_SEEDS`). Whoever holds `operator` holds the bus: it stays in the hub's own files."""

    directory: Path
    seeds: Mapping[str, bytes]

    def seed(self, name: str) -> bytes:
        return self.seeds[name]

    def public(self, name: str) -> str:
        return public_key(self.seeds[name])

    def seed_file(self, name: str) -> Path:
        return self.directory / f"{name}.nk"


def generate_seed(kind: str) -> bytes:
    """A fresh seed of kind operator, account or user (NATS' NKEY encoding: prefix, 32 random bytes, CRC-16, base32)."""
    prefix = _PREFIXES[kind]
    raw = bytes([nkeys.PREFIX_BYTE_SEED | (prefix >> 5), (prefix & 31) << 3]) + os.urandom(32)
    return base64.b32encode(raw + _crc16(raw).to_bytes(2, "little")).rstrip(b"=")


def public_key(seed: bytes) -> str:
    """The public NKEY of a seed."""
    return str(nkeys.from_seed(bytearray(seed)).public_key.decode("ascii"))


def is_user_public_key(text: str) -> bool:
    """Whether `text` is a well-formed public NKEY of a user, as an agent sends it."""
    if len(text) != 56 or not text.startswith("U"):
        return False
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        return False
    return raw[0] == nkeys.PREFIX_BYTE_USER and _crc16(raw[:-2]).to_bytes(2, "little") == raw[-2:]


def ensure_keys(directory: Path) -> NatsKeys:
    """All seeds, made where they are missing (0600 in a 0700 folder). A half-written one is impossible: written aside, then renamed."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    seeds: dict[str, bytes] = {}
    for name, kind in _SEEDS.items():
        file = directory / f"{name}.nk"
        if not file.exists():
            _write_private(file, generate_seed(kind))
        seeds[name] = file.read_bytes().strip()
    return NatsKeys(directory, seeds)


# ── account and user JWTs ────────────────────────────────────────────────────────────────────────────────────────────


def operator_jwt(keys: NatsKeys, now: datetime) -> str:
    claims = {"type": "operator", "version": 2, "system_account": keys.public("sys")}
    return _sign("herdsman", keys.public("operator"), claims, keys.seed("operator"), now)


def account_jwts(keys: NatsKeys, now: datetime, revoked: Mapping[str, datetime] | None = None) -> dict[str, str]:
    """Account public key → JWT, for the server's resolver. `revoked` maps agents' public keys to the time of revocation."""
    platform, agents = keys.public("platform"), keys.public("agents")
    exports = [
        {"name": "up", "subject": "up.*.>", "type": "service", "response_type": "Singleton"},
        {"name": "down", "subject": "down.>", "type": "stream"},
    ]
    operator = keys.seed("operator")
    return {
        keys.public("sys"): _account("SYS", keys.public("sys"), operator, now),
        platform: _account("PLATFORM", platform, operator, now, jetstream=True, exports=exports),
        agents: agents_account_jwt(operator, agents, platform, keys.public("agents-signing"), now, revoked or {}),
    }


def agents_account_jwt(
    operator_seed: bytes, agents: str, platform: str, signing: str, now: datetime, revoked: Mapping[str, datetime]
) -> str:
    """The AGENTS account: what it imports, the scoped key that signs agents, and the keys of agents that may not connect any more."""
    scope = {"kind": "user_scope", "key": signing, "role": "agent", "template": permissions.agent_template()}
    imports = [
        {"name": "up", "subject": "up.*.>", "account": platform, "type": "service"},
        {"name": "down", "subject": "down.>", "account": platform, "type": "stream"},
    ]
    return _account(
        "AGENTS", agents, operator_seed, now, imports=imports, signing_keys=[scope],
        revocations={key: int(moment.timestamp()) for key, moment in sorted(revoked.items())},
    )  # fmt: skip


def service_credentials(keys: NatsKeys, service: str, now: datetime) -> str:
    """The credential file's content of one service, confined by `permissions.service_permissions`."""
    seed = keys.seed(f"service-{service}")
    jwt = _user(service, public_key(seed), keys.seed("platform"), permissions.service_permissions(service), now)
    return render_credentials(jwt, seed)


def administration_credentials(keys: NatsKeys, now: datetime) -> str:
    """For backup and restore: the whole PLATFORM account."""
    seed = keys.seed("administration")
    granted = permissions.administration_permissions()
    return render_credentials(_user("administration", public_key(seed), keys.seed("platform"), granted, now), seed)


def system_credentials(keys: NatsKeys, now: datetime) -> str:
    """For pushing account JWTs (revocation): a user of the SYS account."""
    seed = keys.seed("sys-user")
    granted = {"pub": {"allow": ["$SYS.REQ.CLAIMS.UPDATE"]}, "sub": {"allow": ["_INBOX.>"]}}
    return render_credentials(_user("revocation", public_key(seed), keys.seed("sys"), granted, now), seed)


def issue_agent_jwt(
    signing_seed: bytes, account: str, cluster_uid: str, public_key_of_agent: str, ttl_s: int, now: datetime
) -> str:
    """A JWT for an agent's own key, made out to its cluster. All it may do comes from the template of the signing key."""
    claims = {"type": "user", "version": 2, "issuer_account": account}
    return _sign(cluster_uid, public_key_of_agent, claims, signing_seed, now, expires_at=int(now.timestamp()) + ttl_s)


def render_credentials(jwt: str, seed: bytes) -> str:
    """The text of a `.creds` file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed.decode('ascii')}\n------END USER NKEY SEED------\n"
    )


def _account(
    name: str, public: str, operator_seed: bytes, now: datetime, *, jetstream: bool = False, **parts: Any
) -> str:
    limits: dict[str, Any] = {**_UNLIMITED, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": 0}
    if jetstream:
        limits |= {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    claims = {
        "type": "account", "version": 2, "limits": limits, "default_permissions": {"pub": {}, "sub": {}}, "authorization": {},
        **{part: value for part, value in parts.items() if value},
    }  # fmt: skip
    return _sign(name, public, claims, operator_seed, now)


def _user(name: str, public: str, account_seed: bytes, granted: Mapping[str, Any], now: datetime) -> str:
    return _sign(name, public, {"type": "user", "version": 2, **_UNLIMITED, **granted}, account_seed, now)


def _sign(
    name: str, subject: str, claims: Mapping[str, Any], seed: bytes, now: datetime, expires_at: int | None = None
) -> str:
    key = nkeys.from_seed(bytearray(seed))
    body: dict[str, Any] = {
        "name": name, "sub": subject, "nats": dict(claims), "iss": key.public_key.decode("ascii"), "iat": int(now.timestamp()),
    }  # fmt: skip
    if expires_at is not None:
        body["exp"] = expires_at
    digest = hashlib.new("sha512_256", json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest()
    body["jti"] = base64.b32encode(digest).rstrip(b"=").decode("ascii")
    signed = f"{_b64({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_b64(body)}"
    return f"{signed}.{base64.urlsafe_b64encode(key.sign(signed.encode())).rstrip(b'=').decode('ascii')}"


def _b64(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode("ascii")


def _crc16(data: bytes) -> int:
    """CRC-16/XMODEM, as the NKEY encoding wants it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021) & 0xFFFF if crc & 0x8000 else (crc << 1) & 0xFFFF
    return crc


def _write_private(file: Path, content: bytes) -> None:
    fresh = file.with_name(f"{file.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    fresh.replace(file)
