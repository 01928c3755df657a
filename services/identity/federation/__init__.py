"""Federation for workloads (RFC 8693): the token that a CI job or a pod has from its own platform, for a short-lived one of a service user.

Nothing secret is stored: a FederatedCredential says whose signature is believed about whom. Invariants: an issuer is asked for its keys only if an
enabled credential names it; each credential is judged by its own issuer, authorities and keys alone; more than one that matches is none; whoever asks
hears the same words whatever was wrong, and the log has the reason. A token that was issued hangs on its credential (`libs.common.access.federation`).

Reading order: `claims` (pure: what a token says and whom it fits), `sources` and `keys` (whose signature), `exchange` (the method), `strategy` (writes by the API),
`shared_issuers` (issuers where everybody has tokens), `ends` (tokens whose credential is gone).
"""
