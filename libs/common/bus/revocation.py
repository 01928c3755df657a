"""Agents' keys that may not connect any more: the AGENTS account's JWT with the list in it, pushed to the servers.

A server that takes it drops the connections of the keys in the list at once. The list's home is with whoever calls `push`, who calls
again whenever in doubt: pushing the same list twice is the same as once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from libs.common import errors
from libs.common.bus import accounts
from libs.common.bus.nats import NatsOptions, connect

SUBJECT = "$SYS.REQ.CLAIMS.UPDATE"


@dataclass(frozen=True, slots=True)
class AgentsAccount:
    """What the account's JWT is made of: public keys, and the file of the operator's seed that signs it."""

    agents: str
    platform: str
    signing: str
    operator_seed_file: Path


class RevocationList:
    """Pushes over a short-lived connection of a user of the SYS account, whose credential may do nothing else."""

    def __init__(
        self, account: AgentsAccount, servers: tuple[str, ...], system_creds: Path, now: Callable[[], datetime]
    ) -> None:
        self._account = account
        self._options = NatsOptions(servers=servers, creds_file=system_creds, name="revocation", inbox_prefix="_INBOX")
        self._now = now

    async def push(self, revoked: Mapping[str, datetime]) -> None:
        """Make exactly these keys refused (JWTs issued up to the time given). Raises Unavailable when no server took it."""
        seed = self._account.operator_seed_file.read_bytes().strip()
        jwt = accounts.agents_account_jwt(
            seed, self._account.agents, self._account.platform, self._account.signing, self._now(), revoked
        )
        async with connect(self._options) as bus:
            answer = await bus.connection.request(SUBJECT, jwt.encode("ascii"), timeout_s=5.0)
        try:
            code = json.loads(answer.data)["data"]["code"]
        except (ValueError, KeyError, TypeError) as exc:
            raise errors.Unavailable(
                "the bus did not take the list of revoked agents: its answer cannot be read"
            ) from exc
        if code != 200:
            raise errors.Unavailable(f"the bus did not take the list of revoked agents: code {code}")
