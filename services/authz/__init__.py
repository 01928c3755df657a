"""authz: who may do what where. Owns RoleTemplate, RoleTemplateBinding, AccessPolicy and AccessRequest,
AdmissionPolicy, PodSecurityTemplate and PolicyTrial.

Serves `svc.authz.v1.write`, and `up.<cluster uid>.rpc.authz.trial` to agents. Invariants: nobody gives what they don't hold in that scope, neither by binding nor by editing a role
that is bound; no policy begins by refusing unless it says so; a binding is for one principal, one role and one scope for ever, only its end may move; built-in roles are what
`builtins` says; the hub keeps an admin. What is allowed is decided elsewhere, in every process (`libs.common.access`).

Reading order: `rules` (pure checks), `builtins`, `strategies` (roles), `binding_strategy`, `request_rules`, `policy_of_requests`
and `request_strategy` (asking for a role), `break_glass`, `requests`, `reconciler`, `creators`, `subjects` and `subject_reconciler` (whether anybody can come in to whom a
binding gives something), `policy_rules`, `policy_strategies`, `policy_status`, `policy_reconciler` and `trials` (what clusters refuse, how far each is, what it would break), `bootstrap`, `main`.
"""
