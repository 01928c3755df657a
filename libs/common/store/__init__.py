"""One bucket of the system of record, and the informer that keeps a copy of it.

Reading order: `base` is the contract, `memory` and `jetstream` fulfil it (one conformance suite runs on both); `informer` is the
cache that readers use, with its `brake`, and `objects` the typed view. Beneath `jetstream`: `buckets` (the table of all), `watch`,
`persist` (trying until it is certain), `breaker`, `entries`, `keys`; `changes` and `scan` are for what is too much to copy. Beside
it: `lease` (one replica works), `backup`. Only a bucket's owning service writes it.
"""
