"""The relay engine: HTTP/1.1 moved between two connections without being modelled. Heads are parsed, bytes are moved.

The front door (`services.auth_proxy`) runs it on accepted connections, the agent on connections that it dialled (`dial`):
the same engine with dial in place of accept. Read in this order:

- `head` parses the head of a message and refuses whatever two parsers could read differently; `names` holds the lists;
- `rebuild` makes the head that goes on, from an allow-list; `framing` finds where a body ends;
- `session` is the side that requests come from, `upstream` the side that they go to, `exchange` one request on both;
- `splice` is what an exchange becomes after a switch of protocols; `pool` keeps upstream connections;
- `decision` is what a route answers the engine; `status` makes the engine's own answers; `sweeper` is its only timer;
- `server` accepts, `outbound` dials (also through a proxy), `dial` is the agent's side, `guard` its last check;
- `tunnel` is the contract of reverse connections that both sides share.

Invariants: one connection carries one request at a time; memory per stream is constant; no task and no future on the way of
a request whose upstream connection is at hand; an identity is written into a head last, and only by `rebuild`.
"""
