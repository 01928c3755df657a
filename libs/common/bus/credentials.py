"""What a client of the bus shows to the server: a user JWT and the NKEY seed that proves it is the JWT's owner.

Services read a credential file; an agent gives the connection a function, because its JWT is renewed while it runs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from libs.common import errors

_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s*(\S+)\s*------END NATS USER JWT------")
_SEED = re.compile(r"-----BEGIN USER NKEY SEED-----\s*(\S+)\s*------END USER NKEY SEED------")


@dataclass(frozen=True, slots=True)
class Credential:
    """The seed is a secret: it is not part of the representation."""

    jwt: str
    seed: str = field(repr=False)


CredentialSource = Callable[[], Awaitable[Credential]]


def parse_creds(text: str) -> Credential:
    """The credential in the text of a `.creds` file. Raises Invalid."""
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        raise errors.Invalid("the NATS credential holds no user JWT or no NKEY seed: make it anew")
    return Credential(jwt[1], seed[1])


def render_creds(credential: Credential) -> str:
    """The text of a `.creds` file, as NATS tools know it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{credential.jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{credential.seed}\n------END USER NKEY SEED------\n"
    )


def read_creds(file: Path) -> Credential:
    """The credential in a file, read again for each connection: it may have been replaced. Raises Invalid, Unavailable."""
    try:
        return parse_creds(file.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as exc:
        raise errors.Unavailable(f"cannot read the NATS credential {file}: {exc}") from exc
