"""A certificate authority of our own and the server certificates that it signs: P-256, PEM in, PEM out, no files.

`herdsman up` keeps one in its data folder. Clients and agents are given the authority's certificate and trust nothing
else, so a hub works without a public name. Whoever holds the authority's key can pose as the hub: it stays 0600.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=397)
"""The longest life that browsers accept from a server certificate."""
RENEW_BEFORE = timedelta(days=30)
_BACKDATE = timedelta(days=1)
"""Clocks of clients run behind, by hours where a time zone was set wrong; a fresh certificate would be "not yet valid" to them."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def generate_ca(common_name: str, now: datetime) -> KeyPair:
    """A fresh authority that may sign servers and no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue_server(ca: KeyPair, names: Sequence[str], now: datetime, *, also_client: bool = False) -> KeyPair:
    """A server certificate for DNS names and IP addresses; `also_client`: its holder may prove with it who it is when it dials.

    Raises ValueError when `names` is empty or the CA is unreadable.
    """
    if not names:
        raise ValueError("a server certificate needs at least one name")
    authority = x509.load_pem_x509_certificate(ca.certificate)
    authority_key = _private_key(ca.key)
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if also_client else [])]
    ends = min(now - _BACKDATE + SERVER_LIFETIME, authority.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _pair(certificate, key)


def needs_renewal(certificate: bytes, ca_certificate: bytes, names: Sequence[str], now: datetime) -> str:
    """Why a server certificate must be replaced, or "" when it is good: expiry, another issuer, a name that is missing."""
    try:
        current = x509.load_pem_x509_certificate(certificate)
        authority = x509.load_pem_x509_certificate(ca_certificate)
        current.verify_directly_issued_by(authority)
        listed = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it names no server"
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the old one, the answer is a new one
        return f"it cannot be used: {type(error).__name__}"
    missing = [name for name in names if _general_name(name) not in listed]
    if missing:
        return f"it does not name {missing[0]}"
    if current.not_valid_after_utc - now < RENEW_BEFORE:
        return f"it ends on {current.not_valid_after_utc:%Y-%m-%d}"
    return ""


def expires_at(certificate: bytes) -> datetime:
    """When a PEM certificate ends. Raises ValueError when it is none."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a PEM certificate as `AB:CD:…`, the form that browsers and openssl show. Raises ValueError when it is none."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex(":").upper()


def names_of(certificate: bytes) -> list[str]:
    """The DNS names and addresses of a server certificate. Raises ValueError when it is none."""
    try:
        listed = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound as exc:
        raise ValueError("the certificate names no server") from exc
    return [str(name.value) for name in listed.value]


def join(*certificates: bytes) -> bytes:
    """One PEM bundle of several, each certificate once, in the order given."""
    found = {
        c.fingerprint(hashes.SHA256()): c.public_bytes(serialization.Encoding.PEM)
        for pem in certificates
        for c in x509.load_pem_x509_certificates(pem)
    }
    return b"".join(found.values())


def first_of(bundle: bytes) -> bytes:
    """The first certificate of a bundle: in a hub's own, the authority that signs."""
    return x509.load_pem_x509_certificate(bundle).public_bytes(serialization.Encoding.PEM)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is no elliptic-curve key")
    return key


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
