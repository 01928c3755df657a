"""Tokens that a workload was given for its own: each hangs on a FederatedCredential, and ends with it. Pure.

Such a token names the credential where others name the provider of a sign-in: `federated:<name>:<uid>`, which no provider can be called.
identity issues and revokes by that text, the front door asks `is_counting` at each new caller.
"""

from __future__ import annotations

from collections.abc import Callable

from libs.common.resources.federation import FederatedCredential
from libs.common.resources.identity import User

_PREFIX = "federated:"
CredentialOf = Callable[[str], FederatedCredential | None]


def origin_of(credential: FederatedCredential) -> str:
    """What the tokens of this credential have as `spec.provider`. One made again under the same name has another."""
    return f"{_PREFIX}{credential.name}:{credential.uid}"


def is_federated(provider: str) -> bool:
    """Whether a token's `spec.provider` names a credential."""
    return provider.startswith(_PREFIX)


def is_counting(provider: str, user: User, credential_of: CredentialOf) -> bool:
    """Whether a token of `user` that names this credential is still good: it is there, the same one, enabled, and for this very user."""
    credential = credential_of(provider.removeprefix(_PREFIX).partition(":")[0])
    return (
        credential is not None
        and origin_of(credential) == provider
        and is_usable(credential)
        and (credential.spec.user, credential.spec.user_uid) == (user.name, user.uid)
    )


def is_usable(credential: FederatedCredential) -> bool:
    return credential.spec.enabled and not credential.deleting
