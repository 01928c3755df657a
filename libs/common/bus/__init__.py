"""Messages between services and with agents. `base` is the contract, `memory` and `nats` fulfil it.

`nats` is the only package that imports the client library; it turns its exceptions into families of `libs.common.errors`.
"""
