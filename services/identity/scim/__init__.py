"""SCIM 2.0 (RFC 7643, 7644): a provider of type oidc pushes its users and groups, so that people are here before they first sign in.

What is pushed is the account, never the User: `externalId` is the id that a later sign-in shows, a User is found or made by it as at a sign-in, and names
lead nowhere. Invariants: an account that was pushed as inactive counts for nothing and cannot sign in; the groups of a pushed account are those that were
pushed; nothing here touches a User's spec once it is made, nor an account at another provider.

Reading order: `model` (what is spoken), `requests` (how it is understood), `directory` (what was pushed, by informer), `users`, `groups`, `service` (the
method). Only this package imports `scim2_models`.
"""
