"""Which header names mean what to the relay: lists that `head`, `rebuild` and the routes share. All names are lower case."""

from __future__ import annotations

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""RFC 9110 7.6.1, and `Proxy-*`: they belong to one connection and are never passed on as they came."""

RESERVED_PREFIXES = (b"impersonate-", b"x-remote-", b"herdsman-", b"x-forwarded-")
"""Names that say who calls. From a client they are refused or dropped; a name with `_` in place of `-` is one of them too."""

IDENTITY_PREFIX = b"impersonate-"

FORBIDDEN_TRAILERS = (
    *RESERVED_PREFIXES, b"authorization", b"connection", b"content-", b"cookie", b"expect", b"host", b"location", b"proxy-",
    b"set-cookie", b"trailer", b"transfer-encoding", b"upgrade",
)  # fmt: skip
"""What may not arrive after the body, when all decisions are made (RFC 9110 6.5.1)."""

KUBERNETES_REQUEST = frozenset(
    {
        b"accept", b"accept-encoding", b"accept-language", b"audit-id", b"cache-control", b"content-encoding",
        b"content-language", b"content-type", b"date", b"expect", b"if-match", b"if-modified-since", b"if-none-match",
        b"if-range", b"if-unmodified-since", b"kubectl-command", b"kubectl-session", b"pragma", b"range",
        b"sec-websocket-extensions", b"sec-websocket-key", b"sec-websocket-protocol", b"sec-websocket-version",
        b"traceparent", b"tracestate", b"user-agent", b"x-requested-with", b"x-stream-protocol-version",
        b"x-stream-protocol-versions",
    }
)  # fmt: skip
"""What a request may carry into a cluster. No Authorization, no cookie, no forwarding header is among them."""

KUBERNETES_PLAIN = frozenset(name for name in KUBERNETES_REQUEST if not name.startswith(b"sec-websocket-"))
"""The same without what only a WebSocket handshake has."""

GATEWAY_REQUEST = KUBERNETES_REQUEST | {
    b"host", b"cookie", b"dnt", b"origin", b"referer", b"sec-ch-ua", b"sec-fetch-dest", b"sec-fetch-mode",
    b"sec-fetch-site", b"sec-fetch-user", b"x-csrf-token", b"x-request-id",
}  # fmt: skip
"""What a request may carry to the hub's own services: a browser's headers too."""

ORDINARY = KUBERNETES_REQUEST | GATEWAY_REQUEST | HOP_BY_HOP | {b"authorization", b"content-length", b"origin"}
"""Names that most requests consist of: none of them says who calls, and none has a `_`."""

CLUSTER_RESPONSE_DROPPED = frozenset(
    {
        b"set-cookie", b"set-cookie2", b"clear-site-data", b"strict-transport-security", b"alt-svc", b"service-worker-allowed",
        b"public-key-pins", b"content-security-policy", b"x-content-type-options", b"access-control-allow-origin",
        b"access-control-allow-credentials", b"access-control-allow-headers", b"access-control-allow-methods",
        b"access-control-allow-private-network", b"access-control-expose-headers", b"access-control-max-age",
        # remembered by a browser for the whole origin, or sent there by it
        b"accept-ch", b"critical-ch", b"expect-ct", b"nel", b"origin-agent-cluster", b"public-key-pins-report-only",
        b"report-to", b"reporting-endpoints", b"set-login", b"speculation-rules", b"use-as-dictionary",
        b"content-security-policy-report-only", b"activate-storage-access", b"supports-loading-mode",
        # leads a browser elsewhere, or has it ask for a password in the hub's name
        b"refresh", b"www-authenticate", b"authentication-info",
        # obeyed by a web server that stands before the hub
        b"x-accel-buffering", b"x-accel-charset", b"x-accel-expires", b"x-accel-limit-rate", b"x-accel-redirect",
        b"x-lighttpd-send-file", b"x-sendfile", b"x-reproxy-url",
    }
)  # fmt: skip
"""What an answer from a cluster may not say in the hub's name: it shares the hub's origin in a browser, and its way to it."""

RESPONSE_NOTED = HOP_BY_HOP | CLUSTER_RESPONSE_DROPPED | {b"content-length"}
"""What the relay looks for in the head of an answer: all else passes without being looked at."""

UNBUFFERED = b"X-Accel-Buffering: no\r\n"
"""A line for answers that come bit by bit: nginx obeys it and takes it off."""
