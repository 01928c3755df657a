"""Audit of calls, as far as more than one program needs it: `policy` (which calls, how much), `request` (path → verb and object), `event`
(facts → `audit.k8s.io/v1` Event), `bodies` (what may be shown of a body), `stated` (what a service says of itself), `chain` (hashes and signatures), `stream` (where it is kept).

The front door writes (`services.auth_proxy.audit*`), the gateway reads, the command line verifies.
"""
