"""A small client for one API server: no generated models, nothing kept in memory but what a caller asks for.

Used by the agent (its own cluster) and by whoever reaches a cluster by kubeconfig. Reading order: `endpoint` (where the API
server is and how to prove who we are), `credential` and `exec_plugin` (the proofs), `kubeconfig` and `in_cluster` (outside text to an
endpoint), `client` (requests, retries, typed errors) with `answers` (bodies and watch lines), `objects` (what names an object), `discovery` (kind → path),
`reflector` (list, then watch, for ever), `failures` (answers and exceptions become families of `libs.common.errors`).
"""
