"""project: groups of namespaces with members. Owns Project.

Serves `svc.project.v1.write`. Invariants: a namespace is in at most one project; whoever puts a namespace into a project may update
its cluster; a namespace of a deleted cluster leaves its project. Members are role template bindings: authz owns those.

Reading order: `rules`, `strategies`, `reconciler`, `main`.
"""
