"""What the condition `Ready` of a provider says, and how it is said. Pure; `provider_strategy` and `provider_health` call it.

Everybody who may read providers reads the message: what could hold a secret stays in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from libs.common import errors
from libs.common.resources.providers import LOCAL, IdentityProvider

READY = "Ready"
SETTINGS_REFUSED = "SettingsRefused"
_LONGEST = 400
_SHORTEST_SECRET = 4
"""A shorter one is found in any sentence."""
_NUMBER = re.compile(r"\d+")
_WITH_PASSWORD = re.compile(r"://[^/\s@]*@")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One state of the condition."""

    ok: bool
    reason: str
    message: str


ANSWERS = Verdict(True, "Answers", "the provider answers: people can sign in")
OWN_ACCOUNTS = Verdict(True, "OwnAccounts", "accounts of the hub itself: they depend on no other server")
DISABLED = Verdict(
    False, "Disabled", "nobody signs in here while spec.enabled is false: set it to true to let people in"
)


def judge_settings(provider: IdentityProvider) -> Verdict | None:
    """What can be said without asking the provider; None = it must be asked."""
    if not provider.spec.enabled:
        return DISABLED
    return OWN_ACCOUNTS if provider.spec.type == LOCAL else None


def judge_failure(name: str, error: errors.HerdsmanError, secrets: Iterable[str]) -> Verdict:
    """What a look that failed means, in words for whoever looks after the hub. `secrets`: the provider's own, open."""
    detail = _shown(error.message, secrets)
    if isinstance(error, (errors.Invalid, errors.BadRequest)):
        return Verdict(
            False, SETTINGS_REFUSED, f"people cannot sign in here: {detail}. Correct it with: kubectl edit identityprovider {name}"
        )  # fmt: skip
    if isinstance(error, (errors.Unavailable, errors.Timeout)):
        return Verdict(
            False, "Unreachable",
            f"people cannot sign in here at the moment: {detail}. See whether the provider runs and the hub can reach it; it is asked again by itself",
        )  # fmt: skip
    return Verdict(
        False, "Unusable", "people cannot sign in here: an administrator can read why in the log of identity"
    )


def say(provider: IdentityProvider, verdict: Verdict, now: datetime) -> bool:
    """Set the condition for this generation. Returns whether anything changed; other numbers in the same words are no change."""
    generation = provider.metadata.generation
    before = provider.status.condition(READY)
    message = verdict.message
    if before is not None and before.reason == verdict.reason and _words(before.message) == _words(message):
        message = before.message
    return provider.status.set_condition(READY, verdict.ok, verdict.reason, message, now, generation)


def _shown(text: str, secrets: Iterable[str]) -> str:
    line = " ".join(text.split())[:_LONGEST].rstrip(". ")
    if _WITH_PASSWORD.search(line) or any(len(s) >= _SHORTEST_SECRET and s in text for s in secrets):
        return "the log of identity says why"
    return line


def _words(message: str) -> str:
    return _NUMBER.sub("0", message)
