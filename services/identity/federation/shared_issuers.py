"""Issuers where everybody can have tokens: a credential for one of these must fix whose they are. Pure.

Sources: GitHub's "OpenID Connect reference", GitLab's "ID token authentication", Google's "OpenID Connect".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from libs.common.resources.federation import FederatedCredentialSpec


@dataclass(frozen=True, slots=True)
class Shared:
    """`subject`: what the text before a subject's first `*` must begin with; `claims`: or one of these is given without `*`."""

    subject: re.Pattern[str]
    claims: tuple[str, ...]
    example: str


SHARED = {
    "https://token.actions.githubusercontent.com": Shared(
        re.compile(r"repo:[^/*]+/"), ("repository", "repository_id", "repository_owner", "repository_owner_id", "enterprise_id"),
        "repo:OWNER/REPOSITORY:ref:refs/heads/main",
    ),
    "https://gitlab.com": Shared(
        re.compile(r"project_path:[^/*]+/"), ("namespace_id", "namespace_path", "project_id", "project_path"),
        "project_path:GROUP/PROJECT:ref_type:branch:ref:main",
    ),
    "https://accounts.google.com": Shared(re.compile(r"[0-9]{6,}"), ("email",), "the account's numeric id"),
}  # fmt: skip


def why_too_wide(spec: FederatedCredentialSpec) -> str:
    """Why strangers could match; empty: it fixes whose workloads are meant, or the issuer is nobody's but one's own."""
    shared = SHARED.get(spec.issuer)
    if shared is None or shared.subject.match(spec.subject.partition("*")[0]):
        return ""
    if any("*" not in spec.claims.get(name, "*") for name in shared.claims):
        return ""
    return f"everybody can have tokens of this issuer, so it must say whose are meant, such as {shared.example}"
