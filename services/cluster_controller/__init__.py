"""The cluster_controller: owns Cluster and RegistrationToken, knows whether each cluster is there, and says what it should hold.

Serves `svc.cluster_controller.v1.{write,issue_registration,check_registration,register_agent}` to the gateway and
`up.<cluster uid>.rpc.cluster_controller.{renew,desired,applied}` to agents; hears `up.*.hb`; says `down.<cluster uid>.notify`.

Invariants: a registration token is good for one agent, once; one public key at a time speaks for a cluster, and a replaced or
deleted one is revoked; the rendered desired set depends on role templates, projects, policies, and the cluster's name, labels and agent alone; a cluster that was
registered is only forgotten when its agent reported that nothing is left, or when a person forced it; Connected means
heartbeats, never a stored flag. It knows nothing of users' memberships: those never reach a cluster.

Reading order: `model` (tokens, names, internal records), `rules`, `render`, `render_projects` and `render_guard` (pure), `policies`, `desired` (hashes that are remembered), `store` (what changes together),
`strategies` (checks on people's writes), `credentials` (agents' JWTs), `registration` and `agents` (handlers), `liveness`,
`reconciler`, `sweeper`, `main`.
"""
