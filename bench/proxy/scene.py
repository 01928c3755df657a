"""What is sent and what is answered: a list of pods as kubectl asks for it. All contestants see the same bytes.

The API server's stand-in refuses a request without the impersonated user or without the API server's own credential, so a
proxy that skips the work gets 401 and no figure.
"""

from __future__ import annotations

import json

CONNECTIONS = 32
LIST_PATH = "/api/v1/namespaces/shop/pods?limit=500"
WATCH_PATH = "/api/v1/namespaces/shop/pods?watch=true&resourceVersion=81275"
BULK_PATH = "/apis/bulk"
ECHO_PATH = "/apis/echo"
BULK_BYTES = 64 * 1024 * 1024
BODY_BYTES = 2400

KUBECTL = (
    ("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"),
    ("Accept-Encoding", "gzip"),
    ("Kubectl-Command", "kubectl get"),
    ("Kubectl-Session", "5f0bb1b7-0d2c-4c5c-8d5c-2f6b2f0f8a51"),
    ("User-Agent", "kubectl/v1.36.3 (linux/amd64) kubernetes/1f3c9a7"),
)  # fmt: skip
"""What kubectl sends beside Host and Authorization."""

# A service account's token is about this long.
API_CREDENTIAL = "Bearer " + ("eyJhbGciOiJSUzI1NiIsImtpZCI6Ik" * 31)[:900]
USER_LINE = b"\r\nImpersonate-User: herdsman:"
CREDENTIAL_LINE = f"\r\nAuthorization: {API_CREDENTIAL}\r\n".encode()

_ANSWER = (
    ("Audit-Id", "8f9c1c56-1e0b-4a52-9f0a-6f3f0d3f6f52"),
    ("Cache-Control", "no-cache, private"),
    ("Content-Type", "application/json"),
    ("X-Kubernetes-Pf-Flowschema-Uid", "0f3f2a52-96a5-44c4-8a4c-9f1a5f2f8f2e"),
    ("X-Kubernetes-Pf-Prioritylevel-Uid", "4d5c2f6b-2f0f-4a51-b7d2-1b7f0d2c5f0b"),
    ("Date", "Tue, 03 Mar 2026 10:00:00 GMT"),
)


def render_list() -> bytes:
    """A list of exactly `BODY_BYTES`."""
    pods: list[dict[str, object]] = []
    frame = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "81275"}, "items": pods}
    while len(json.dumps(frame)) < BODY_BYTES - 200:
        name = f"cart-7c9d8f6b5-{len(pods):05d}"
        pods.append(
            {"metadata": {"name": name, "namespace": "shop", "labels": {"app": "cart"}}, "status": {"phase": "Running"}}
        )
    body = json.dumps(frame).encode()
    return body + b" " * (BODY_BYTES - len(body))


def render_answer(*more: tuple[str, str]) -> bytes:
    """The head of an answer, as an API server writes it, with further fields."""
    lines = [f"{name}: {value}\r\n" for name, value in (*_ANSWER, *more)]
    return ("HTTP/1.1 200 OK\r\n" + "".join(lines) + "\r\n").encode()


def render_request(path: str, headers: list[tuple[str, str]]) -> bytes:
    """A GET as kubectl writes it."""
    lines = [f"{name}: {value}\r\n" for name, value in (*KUBECTL, *headers)]
    return (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n" + "".join(lines) + "\r\n").encode()
