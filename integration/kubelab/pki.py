"""Keys and certificates of one cluster: three authorities, the certificates they sign, the service-account key.

Called by `run` before anything starts. Idempotent: what exists and is still good is kept, so that kubeconfigs in
people's hands survive a restart; a certificate close to its end, or made for other addresses, is made again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from integration.kubelab.paths import write_private

_CA_LIFE = timedelta(days=3650)
_LEAF_LIFE = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)
_CLOCK_SKEW = timedelta(minutes=5)

CLUSTER_CA = "ca"
ETCD_CA = "etcd-ca"  # of its own: whoever holds a client certificate of the cluster must not be able to read etcd
FRONT_PROXY_CA = "front-proxy-ca"  # of its own: it vouches for user names in plain headers
SERVICE_ACCOUNT_KEY = "service-account"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One certificate: who it names, who signs it, and what it may do. `sans` are addresses and DNS names."""

    name: str
    authority: str
    common_name: str
    organization: str = ""
    sans: tuple[str, ...] = ()
    server: bool = False
    client: bool = True


def leaves(cluster: str, server_addresses: Sequence[str], service_ip: str, node_ip: str | None) -> tuple[Leaf, ...]:
    """Every certificate of a cluster whose API server answers on `server_addresses`."""
    in_cluster = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    components = (
        Leaf("apiserver", CLUSTER_CA, "kube-apiserver", sans=(*dict.fromkeys(server_addresses), service_ip, "localhost", *in_cluster), server=True, client=False),
        Leaf("apiserver-kubelet-client", CLUSTER_CA, "kube-apiserver-kubelet-client", "system:masters"),
        Leaf("admin", CLUSTER_CA, "kubernetes-admin", "system:masters"),
        Leaf("kube-controller-manager", CLUSTER_CA, "system:kube-controller-manager"),
        Leaf("kube-scheduler", CLUSTER_CA, "system:kube-scheduler"),
        Leaf("kube-proxy", CLUSTER_CA, "system:kube-proxy"),
        Leaf("front-proxy-client", FRONT_PROXY_CA, "front-proxy-client"),
        Leaf("etcd", ETCD_CA, "etcd", sans=("127.0.0.1", "localhost"), server=True),
        Leaf("etcd-client", ETCD_CA, "kube-apiserver-etcd-client"),
    )  # fmt: skip
    if node_ip is None:
        return components
    return (
        *components,
        Leaf("kubelet-client", CLUSTER_CA, f"system:node:{cluster}", "system:nodes"),
        Leaf(
            "kubelet-server",
            CLUSTER_CA,
            f"system:node:{cluster}",
            "system:nodes",
            sans=(node_ip, cluster),
            server=True,
            client=False,
        ),
    )


def ensure_pki(folder: Path, wanted: Sequence[Leaf], now: datetime) -> list[str]:
    """Makes what is missing or no longer good in `folder`; returns the names of what was made."""
    made = []
    authorities = {}
    for name in (CLUSTER_CA, ETCD_CA, FRONT_PROXY_CA):
        loaded = _load(folder, name)
        if loaded is None or loaded[0].not_valid_after_utc < now + _RENEW_BEFORE:
            loaded = _new_authority(name, now)
            _save(folder, name, *loaded)
            made.append(name)
        authorities[name] = loaded
    for leaf in wanted:
        ca_certificate, ca_key = authorities[leaf.authority]
        present = _load(folder, leaf.name)
        if present is None or not _is_good(present[0], leaf, ca_certificate, now):
            _save(folder, leaf.name, *_new_leaf(leaf, ca_certificate, ca_key, now))
            made.append(leaf.name)
    if not key_path(folder, SERVICE_ACCOUNT_KEY).exists():
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_private(folder / f"{SERVICE_ACCOUNT_KEY}.pub", public)
        write_private(key_path(folder, SERVICE_ACCOUNT_KEY), _pem(key))
        made.append(SERVICE_ACCOUNT_KEY)
    return made


def certificate_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.crt"


def key_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _load(folder: Path, name: str) -> Pair | None:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path(folder, name).read_bytes())
        key = serialization.load_pem_private_key(key_path(folder, name).read_bytes(), password=None)
    except FileNotFoundError:
        return None
    except ValueError:
        return None  # torn or foreign content is as good as none: it is made again
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None  # the machine went down between the writes of certificate and key
    return certificate, key


def _save(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(key_path(folder, name), _pem(key))
    write_private(certificate_path(folder, name), certificate.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _is_good(certificate: x509.Certificate, leaf: Leaf, authority: x509.Certificate, now: datetime) -> bool:
    if certificate.not_valid_after_utc < now + _RENEW_BEFORE or certificate.subject != _subject(leaf):
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001  the library raises three unrelated types; each means: not signed by this authority
        return False
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return not leaf.sans
    return list(sans) == _general_names(leaf.sans)


def _subject(leaf: Leaf) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)]
    if leaf.organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, leaf.organization))
    return x509.Name(attributes)


def _general_names(sans: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for san in sans:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(san)))
        except ValueError:
            names.append(x509.DNSName(san))
    return names


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _new_authority(name: str, now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial in the name: two generations of one authority must not look like the same issuer.
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kubelab-{name}-{x509.random_serial_number():x}"[:60])])
    certificate = (
        _builder(title, title, key, now, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _new_leaf(
    leaf: Leaf, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, now: datetime
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * leaf.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * leaf.client
    builder = (
        _builder(_subject(leaf), authority.subject, key, now, _LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
    )
    if leaf.sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(_general_names(leaf.sans)), critical=False)
    return builder.sign(authority_key, hashes.SHA256()), key
