"""Providers: where accounts are. `base` says what each can do, `running` keeps those that are configured, one module per type.

`ldap3` and `authlib` are imported in the module of their provider alone.
"""
