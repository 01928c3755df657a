"""node_registry: identity and condition of every node of every cluster. Owns Node.

Hears `up.<cluster uid>.st.nodes`. Invariants: a Node is named `<cluster>.<node>` and belongs to that cluster's uid; it is written only
when it changed; it goes when a complete listing lacks it or its cluster is gone, and never otherwise. The cluster an agent speaks for
is the one in its subject, which its credential confines; what it says inside a message can't name another.

Reading order: `rules`, `inbox`, `reconciler`, `main`.
"""
