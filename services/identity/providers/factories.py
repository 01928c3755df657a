"""Which code serves which type of provider. A type that is missing has no accounts of its own here.

Each is imported when the first provider of its type is: most hubs have one type, and the libraries behind them are large.
"""

from __future__ import annotations

from typing import Any

from libs.common.resources.providers import IdentityProvider
from services.identity.providers.base import Provider
from services.identity.providers.running import Factory


def _ldap(resource: IdentityProvider, settings: Any) -> Provider:
    from services.identity.providers.ldap.provider import make_ldap

    return make_ldap(resource, settings)


def _oidc(resource: IdentityProvider, settings: Any) -> Provider:
    from services.identity.providers.oidc import make_oidc

    return make_oidc(resource, settings)


def _github(resource: IdentityProvider, settings: Any) -> Provider:
    from services.identity.providers.github import make_github

    return make_github(resource, settings)


FACTORIES: dict[str, Factory] = {"ldap": _ldap, "activeDirectory": _ldap, "github": _github, "oidc": _oidc}
