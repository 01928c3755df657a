"""Bundles of certificate authorities as agents and the hub compare them. Standard library only: the agent stays small.

`ca` makes certificates; this says what a PEM bundle is, without a look into its certificates beyond what OpenSSL says of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import ssl

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)


def digest_of(bundle: bytes) -> str:
    """SHA-256 in hexadecimal over the SHA-256 digests of all certificates of a PEM bundle, sorted. Raises ValueError when there is none.

    Equal for bundles that trust the same, whatever their order and spelling.
    """
    found = sorted({hashlib.sha256(der).digest() for der in _ders(bundle)})
    return hashlib.sha256(b"".join(found)).hexdigest()


def is_authority(bundle: bytes) -> bool:
    """Whether each certificate of a PEM bundle may sign others. Raises ValueError when there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, b"".join(set(_ders(bundle))))
    counts = context.cert_store_stats()
    return counts["x509"] == counts["x509_ca"]


def _ders(bundle: bytes) -> list[bytes]:
    try:
        found = [base64.b64decode(b"".join(text.split()), validate=True) for text in _CERTIFICATE.findall(bundle)]
    except binascii.Error as exc:
        raise ValueError("what stands between BEGIN and END CERTIFICATE is no base64") from exc
    if not found:
        raise ValueError("there is no certificate in it")
    for der in set(found):
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), der)
    return found


def _load(context: ssl.SSLContext, der: bytes) -> None:
    try:
        context.load_verify_locations(cadata=der)
    except ssl.SSLError as exc:
        raise ValueError("one of its certificates cannot be read") from exc
