"""Security policies → what a cluster holds of them. Pure: rendered by cluster_controller, judged by authz, carried out by agents.

`choice` says which clusters are meant, `admission` renders ValidatingAdmissionPolicies, `pod_security` renders templates by the
`levels`. Agents import `names` and `levels` alone. What a cluster is told beside objects are orders: documents of our own API group that no cluster ever stores.
"""
