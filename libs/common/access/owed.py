"""What a person must do after a sign-in with a password of the hub's own before anything else is allowed. Pure.

It is found at each call from the user and the settings of now, and stored nowhere: done, it is gone; there is no mark on a token that could be missing.
The front door writes it into the envelope; `crypto.envelope.Verifier.open` refuses who owes something, but for the few methods that help.
"""

from __future__ import annotations

from libs.common.access.principal import Owed
from libs.common.resources.identity import TokenPurpose, User
from libs.common.resources.providers import LOCAL, LocalSettings

_SIGN_INS: frozenset[TokenPurpose] = frozenset({"login", "session", "exec"})
_HOW: dict[Owed, str] = {
    "password": 'change your password, which somebody else chose, with "herdsman password"',
    "secondFactor": 'set up a second factor with "herdsman user second-factor set"',
}


def find_owed(user: User, provider: str, purpose: TokenPurpose, settings: LocalSettings | None) -> list[Owed]:
    """What the holder of a token owes that came from a sign-in at `provider`; [] = nothing. `settings`: the local provider's.

    Tokens of files and scripts stay good when a second factor is asked for later: nobody could give one there.
    """
    if provider != LOCAL:
        return []
    owed: list[Owed] = ["password"] if user.status.must_change_password else []
    if (
        settings is not None
        and settings.require_one_time_code
        and not user.status.second_factor
        and purpose in _SIGN_INS
    ):
        owed.append("secondFactor")
    return owed


def explain(owed: list[Owed]) -> str:
    """What to do first, for the person."""
    return f"first {' and '.join(_HOW[one] for one in owed)}, or do it on the hub's page: until then nothing else is allowed"
