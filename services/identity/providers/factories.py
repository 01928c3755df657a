"""Which code serves which type of provider. A type that is missing has no accounts of its own here."""

from __future__ import annotations

from services.identity.providers.ldap.provider import make_ldap
from services.identity.providers.running import Factory

FACTORIES: dict[str, Factory] = {"ldap": make_ldap, "activeDirectory": make_ldap}
