"""The agent: one in each cluster, the hub's hands and eyes there. It dials out only, and keeps nothing that it could not make again.

It hears `down.<cluster uid>.notify` and speaks on `up.<cluster uid>.…` (heartbeat, observed nodes, requests to the
cluster_controller); its reverse connections let the front door reach the cluster's API server.

Invariants: the service-account token never leaves the cluster; everything it owns carries two labels (`owned`) and no
finalizer; it deletes no namespace but its own, and touches nothing that is somebody else's; rights are taken away before others are
added; without the hub the last desired set stays enforced. It knows neither users nor why the desired set is what it is.

Reading order: `config`, `state` (what survives a restart), `identity` (registration), `credential` (renewal), `desired` (what
should be, and when to look; `fetch`, `wanted` and `results` are what it works with), `enforce` (one round), `diff` and `claims`
(pure: from what is to what should be, for objects and for namespaces), `apply` (do it), `guard_owned` (notice when it must be
done), `observe_nodes`, `heartbeat`, `tunnel`, `detach` (leave nothing behind), `health` (probes), `main` (the wiring).
"""
