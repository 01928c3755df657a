"""Messages between services and with agents.

Reading order: `base` is the contract, `memory` and `nats` fulfil it (with `wire`, `reply`, `serving`, `subject`, `failures`).
Beneath `nats`: `connection` keeps one up, `client` alone imports the library and turns its exceptions into families of
`libs.common.errors`, `credentials` and `websocket` are its parts. JetStream: `jetstream_api` (requests and error numbers), `pull`,
`snapshot`; plain streams in `streams`, `durable`, `dead_letters`. The server's side: `accounts`, `revocation`, `server`.
"""
