"""The gateway: the management API for UI clients and tools, behind the front door, which says who calls.

Owns nothing and writes nothing: reads come from informers, filtered by what the caller may see; writes go by bus to the owner
of the kind, which decides. Reading order: `routes` (what is served), `app` (how a call passes), `api`, `writes`, `streams`,
then `reviews`, `virtual`, `signin`, `pages`, `registration`, `health`, and `main.build`.
"""
