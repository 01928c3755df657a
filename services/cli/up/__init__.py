"""`herdsman up`: a whole hub on one machine, run by one process that owns all others.

Reading order: `run` (the whole start on one screen), `layout` (every path), `secrets` (keys and certificates, made once),
`config` (one JSON file for each service), `programs` (what is started, and when it counts as ready), `supervisor` (start in
order, restart, stop in reverse), `store_keeper` (a full disk), `processes` (proof that a pid is ours), `record` (herdsman.json), `local` (the cluster).

Invariants: one `up` for each data folder; nothing outlives it; a second start finds everything again; nothing leaves the
folder except a short runtime folder for the socket where the data folder's path is too long for one.
"""
