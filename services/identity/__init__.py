"""identity: who people are and what lets them in. Owns User, Group, Token, IdentityProvider and FederatedCredential.

Serves `svc.identity.v1.{write,login,sign_in_options,issue_token,exchange_token,revoke_token,back_channel_logout,change_password,scim}`. Invariants: a password is only ever kept as an
Argon2id hash, a token as a SHA-256 hash and any other secret sealed, all `private`; every token expires; a token belongs to one user by uid, whose
record names it; an account at a provider belongs to one user; the last enabled admin can neither be deleted nor disabled. It holds no copy of
tokens, and does not know what anybody may do: that is asked of `libs.common.access`.

Everything that lets somebody in, or does not, or takes something away, is told to the audit log (`audit`). Replicas count failed sign-ins together.

Reading order: `passwords`, `throttle`, `throttle_peers`, `tokens` (the parts), `audit`, `providers` (where accounts are), `accounts` (from an account to a user), `sign_in`,
`redirects`, `sign_outs` and `back_channel` (sign-in and sign-out with a provider's page), `pushed` and `scim` (accounts that a provider pushes), `federation` (workloads), `strategies`, `group_strategy` and `provider_strategy` (writes by
the API), `handlers` (methods), `token_records`,
`provider_ready` and `provider_health` (whether providers answer), `activity`, `inactive_rules` and `inactive` (users whom nobody uses), `adoption` and `sweeper` (who has which tokens, and which nobody should hold any more), `logins`, `bootstrap`, `main`.
"""
