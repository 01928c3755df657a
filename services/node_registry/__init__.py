"""node_registry: identity, condition and history of every node of every cluster. Owns Node, and beside the nodes one history for each machine.

Hears `up.<cluster uid>.st.nodes`. Invariants: a Node is named `<cluster>.<node>` and belongs to that cluster's uid; it is written only
when it changed; it goes when a complete listing lacks it or its cluster is gone, and never otherwise; an older observation never wins over a newer one.
The cluster an agent speaks for is the one in its subject, which its credential confines; what it says inside a message can't name another, and no
identity of a machine passes from one cluster to another.

Reading order: `rules` (from an observation to a Node), `machines` (which machine it is; collisions), `history` (what is told of it), all pure; `inbox`, `view`
(what is known), `registrar` and `history_log` (give nodes their machine, keep its history), `reconciler`, `collisions`, `pace`, `main`.
"""
