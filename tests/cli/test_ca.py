"""Our own certificate authority: what it signs is trusted by OpenSSL through Python's ssl, and replaced in time."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from libs.common.crypto import ca

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NAMES = ["localhost", "127.0.0.1", "::1", "hub.example"]


@pytest.fixture(scope="module")
def authority():
    return ca.generate_ca("Herdsman CA", NOW)


def test_fresh_certificate_needs_no_renewal(authority):
    pair = ca.issue_server(authority, NAMES, NOW)
    assert ca.needs_renewal(pair.certificate, authority.certificate, NAMES, NOW) == ""


def test_certificate_is_renewed_when_less_than_thirty_days_are_left(authority):
    pair = ca.issue_server(authority, NAMES, NOW)
    ends = ca.expires_at(pair.certificate)
    assert ca.needs_renewal(pair.certificate, authority.certificate, NAMES, ends - timedelta(days=31)) == ""
    assert "ends on" in ca.needs_renewal(pair.certificate, authority.certificate, NAMES, ends - timedelta(days=29))


def test_certificate_is_renewed_when_a_name_is_missing(authority):
    pair = ca.issue_server(authority, ["localhost"], NOW)
    assert "10.0.0.7" in ca.needs_renewal(pair.certificate, authority.certificate, ["localhost", "10.0.0.7"], NOW)


def test_certificate_of_another_authority_is_replaced(authority):
    other = ca.generate_ca("Herdsman CA", NOW)
    pair = ca.issue_server(other, NAMES, NOW)
    assert ca.needs_renewal(pair.certificate, authority.certificate, NAMES, NOW)


def test_rubbish_is_replaced(authority):
    assert ca.needs_renewal(b"rubbish", authority.certificate, NAMES, NOW)


def test_authority_lives_ten_years_and_signs_no_further_authority(authority):
    certificate = x509.load_pem_x509_certificate(authority.certificate)
    assert ca.expires_at(authority.certificate) == NOW + timedelta(days=3650)
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)


def test_server_certificate_never_outlives_its_authority(authority):
    late = NOW + timedelta(days=3600)
    pair = ca.issue_server(authority, NAMES, late)
    assert ca.expires_at(pair.certificate) == ca.expires_at(authority.certificate)


def test_no_name_is_refused(authority):
    with pytest.raises(ValueError, match="at least one name"):
        ca.issue_server(authority, [], NOW)


@pytest.mark.parametrize(("name", "trusted"), [("localhost", True), ("hub.example", True), ("other.example", False)])
async def test_openssl_accepts_the_names_and_no_other(tmp_path, name, trusted):
    now = datetime.now(UTC)
    authority = ca.generate_ca("Herdsman CA", now)
    pair = ca.issue_server(authority, NAMES, now)
    (tmp_path / "crt").write_bytes(pair.certificate)
    (tmp_path / "key").write_bytes(pair.key)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    # The strictest that OpenSSL knows: what a hardened client would demand of a chain.
    client = ssl.create_default_context(cadata=authority.certificate.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    async def answer(reader, writer):
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served)
    port = server.sockets[0].getsockname()[1]
    try:
        if trusted:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
            writer.transport.abort()
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
    finally:
        server.close()
        await server.wait_closed()


def test_fingerprint_is_the_form_that_browsers_show(authority):
    parts = ca.fingerprint(authority.certificate).split(":")
    assert len(parts) == 32
    assert all(len(part) == 2 and part == part.upper() for part in parts)
