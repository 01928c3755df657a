"""Settings: what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.auth_proxy.config import AuthProxyConfig, parse_address

BASE = {
    "audit_dir": "a",
    "nats_url": ["nats://h"], "identity_public_key": "p", "identity_private_key": "k", "tls_certificate": "c", "tls_key": "k",
    "gateway_socket": "s",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), [("1.2.3.4:5", ("1.2.3.4", 5)), ("[::1]:443", ("::1", 443)), (":8443", ("0.0.0.0", 8443))]
)
def test_addresses_are_read(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["host", "host:", "host:x", "host:70000", ""])
def test_bad_addresses_are_refused(text):
    with pytest.raises(ValueError, match="write host:port"):
        parse_address(text)


def test_gateway_must_be_somewhere():
    assert AuthProxyConfig(**BASE).gateway_socket == Path("s")
    with pytest.raises(ValidationError, match="where the gateway listens"):
        AuthProxyConfig(**{**BASE, "gateway_socket": None})
    with pytest.raises(ValidationError, match="write host:port"):
        AuthProxyConfig(**BASE, listen="nowhere")
