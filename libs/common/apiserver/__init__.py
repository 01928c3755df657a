"""The Kubernetes API machinery of the hub, without HTTP: what makes a stored document behave as an object of kubectl's.

For owners: `strategy` (the hooks of a kind), `writer` (one write from envelope to CAS), and below it `patch`, `apply`,
`managed_fields`, `metadata`, `validate`, `rights` and `changes`, which joins them. For the gateway: `surface` (all that is
served), `virtual_kinds`, `selectors`, `paging`, `watch`, `table`, `discovery`, `schemas`, `openapi`, `openapi_v2`, `protobuf`.
"""
