"""project: groups of namespaces with members, and what these namespaces are kept to. Owns Project and ProjectTemplate.

Serves `svc.project.v1.write`, `.create_namespace`, `.move_namespace`, `.make_project`; hears `up.<cluster uid>.st.namespaces`.
Invariants: a namespace is in at most one project, also while it moves, and never one of the cluster's own; whoever brings one in may
update its cluster and holds there what the project's members will hold; policies are changed by those alone who have the right
`projects/policies`; the shares of a project's namespaces are never more than its quota; whoever writes a template holds all that it
gives; a namespace of a deleted cluster leaves its project. Members are role template bindings: authz owns those.

Reading order: `system`, `rules`, `policies`, `shares`, `rights`, `claims`, `strategies`, `moves`, `reconciler`, `observed`, `status`,
`status_reconciler`, `namespaces`, `templates`, `template_strategy`, `main`.
"""
