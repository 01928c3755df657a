"""identity: who people are and what lets them in. Owns User and Token.

Serves `svc.identity.v1.{write,login,issue_token,revoke_token,change_password}`. Invariants: a password is only ever kept as an
Argon2id hash and a token as a SHA-256 hash, both `private`; every token expires; a token belongs to one user by uid; the last
enabled admin can neither be deleted nor disabled. It does not know what anybody may do: that is asked of `libs.common.access`.

Reading order: `passwords`, `throttle`, `tokens` (the parts), `strategies` (writes by the API), `handlers` (methods),
`reconciler` (tokens that nobody should hold any more), `logins`, `bootstrap`, `main`.
"""
