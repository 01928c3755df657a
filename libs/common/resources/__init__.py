"""The resource model: every management object is a Kubernetes-style resource, declared once, here.

Reading order: `meta` (what all objects share), `identity`, `access`, `clusters`, `nodes`, `projects` (the kinds),
`registry` (kind → owner, bucket, columns, verbs), `codec` (object ↔ bytes), `unknown` (fields that nobody declared).
"""
