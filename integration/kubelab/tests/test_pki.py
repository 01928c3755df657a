"""Certificates: what they allow, and when they are made again."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from integration.kubelab import pki

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LEAVES = pki.leaves("edge", ["127.0.0.1", "10.200.1.1"], "10.96.0.1", "10.200.1.2")


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pki.certificate_path(folder, name).read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.ensure_pki(tmp_path, LEAVES, NOW)
    return tmp_path


def test_second_call_makes_nothing(folder: Path) -> None:
    assert pki.ensure_pki(folder, LEAVES, NOW + timedelta(days=1)) == []


def test_serving_certificate_names_every_address(folder: Path) -> None:
    sans = certificate(folder, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in sans.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "10.200.1.1", "10.96.0.1"]
    assert "kubernetes.default.svc" in sans.get_values_for_type(x509.DNSName)


def test_administrator_is_a_client_in_system_masters_and_no_server(folder: Path) -> None:
    admin = certificate(folder, "admin")
    assert admin.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:masters"
    usage = admin.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_cluster_client_certificates_do_not_open_etcd(folder: Path) -> None:
    etcd_ca = certificate(folder, pki.ETCD_CA)
    certificate(folder, "etcd-client").verify_directly_issued_by(etcd_ca)
    with pytest.raises(ValueError, match="issuer"):
        certificate(folder, "admin").verify_directly_issued_by(etcd_ca)


def test_every_file_is_readable_by_its_owner_only(folder: Path) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_changed_address_makes_only_the_serving_certificate_again(folder: Path) -> None:
    moved = pki.leaves("edge", ["127.0.0.1", "10.200.9.1"], "10.96.0.1", "10.200.1.2")
    assert pki.ensure_pki(folder, moved, NOW) == ["apiserver"]


def test_certificates_near_their_end_are_made_again_and_the_authority_stays(folder: Path) -> None:
    made = pki.ensure_pki(folder, LEAVES, NOW + timedelta(days=340))
    assert set(made) == {leaf.name for leaf in LEAVES}


@pytest.mark.parametrize("damage", [b"", b"not a certificate"])
def test_damaged_file_is_made_again(folder: Path, damage: bytes) -> None:
    pki.certificate_path(folder, "admin").write_bytes(damage)
    assert pki.ensure_pki(folder, LEAVES, NOW) == ["admin"]


def test_new_authority_replaces_everything_that_it_signed(folder: Path) -> None:
    pki.key_path(folder, pki.CLUSTER_CA).unlink()
    made = pki.ensure_pki(folder, LEAVES, NOW)
    assert set(made) == {pki.CLUSTER_CA} | {leaf.name for leaf in LEAVES if leaf.authority == pki.CLUSTER_CA}
