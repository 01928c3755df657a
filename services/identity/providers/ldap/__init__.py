"""LDAP directories: OpenLDAP, FreeIPA and others (`ldap`), Active Directory (`activeDirectory`).

Reading order: `layout` (what is where in a directory, by its kind), `filters`, `account` (may this person come in), `walk` (groups of groups): pure;
`link` (one connection, the only module that calls ldap3), `directory` (many of them behind one async face), `provider`.
"""
