"""The front door: TLS, one relay engine for every route. It owns nothing and decides every Kubernetes API call.

Reading order: `config`, `main` (the wiring), `routes` (path → target), then the four targets: `cluster_route` (a cluster, through its
agent's reverse connections), `agent_route` (agents come in), `nats_route` (the agents' bus), `gateway_route` (all else). Behind
them: `authenticate` (token → principal), `identity` (principal → Impersonate-* bytes), `tunnels` (reverse connections), `calls` and
`revocation` (what is open, and what must be cut), `audit` (events, in batches, through `audit_writer` and `audit_spool` into the bus; `audit_stated`: what identity says of itself).

Invariants: nothing on a request's way waits for the bus; a request to a cluster leaves with exactly one identity, made here, or not at
all; no credential and no cookie of a caller ever reaches a cluster; a right that is lost cuts the open streams that used it.
"""
