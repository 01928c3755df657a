"""Recordings made here, and the keys that sign them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.crypto.envelope import Signer, Verifier
from libs.common.recording.chain import Opener, Sealer
from libs.common.recording.events import Event
from libs.common.recording.model import Facts, Outcome

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
SIGNER = Signer(KEY, lambda: NOW)
VERIFIER = Verifier(KEY.public_key(), lambda: NOW)
OTHER = Signer(Ed25519PrivateKey.from_private_bytes(b"o" * 32), lambda: NOW)
ID = "20260301t120000-00000001"


def facts(**more: object) -> Facts:
    given = {
        "id": ID, "user": "ada", "user_uid": "u1", "cluster": "prod", "cluster_uid": "c1", "namespace": "default", "pod": "web",
        "action": "exec", "command": ["sh"], "carrier": "websocket", "started": NOW,
    }  # fmt: skip
    return Facts(**(given | more))


def outcome(**more: object) -> Outcome:
    given = {"ended": NOW + timedelta(seconds=3), "duration_ms": 3000, "http_status": 101, "exit_code": 0}
    return Outcome(**(given | more))


def seal(events: list[list[Event]], *, end: bool = True, signer: Signer = SIGNER, **more: object) -> list[bytes]:
    """The messages of a recording, one part for each list of events."""
    sealer = Sealer(signer)
    messages = [sealer.head(facts(**more)), *(sealer.part(part) for part in events)]
    if end:
        messages.append(sealer.end(outcome()))
    return [message.data for message in messages]


def open_all(messages: list[bytes], id_: str = ID) -> tuple[Opener, list[Event]]:
    opener = Opener(id_, VERIFIER)
    return opener, [event for message in messages for event in opener.open(message)]
