"""One bucket of the system of record, and the informer that keeps a copy of it.

`base` is the contract, `memory` and `jetstream` fulfil it (one conformance suite runs on both), `informer` is the cache
that readers use, `objects` the typed view. Only a bucket's owning service writes it.
"""
