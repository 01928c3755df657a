"""A real OpenLDAP server in a folder of its own, on loopback, with LDAPS, StartTLS and what a test wants in it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from libs.common.crypto import ca
from libs.common.resources.providers import DirectorySettings

BASE = "dc=example,dc=org"
PEOPLE, GROUPS = f"ou=people,{BASE}", f"ou=groups,{BASE}"
SERVICE, SERVICE_PASSWORD = f"cn=reader,{BASE}", "reader-secret"
ROOT, ROOT_PASSWORD = f"cn=root,{BASE}", "root-secret"
_CONF = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
TLSCACertificateFile {folder}/ca.crt
TLSCertificateFile {folder}/server.crt
TLSCertificateKeyFile {folder}/server.key
sizelimit size.soft=500 size.hard={size_limit} size.pr=500 size.prtotal=unlimited
database mdb
maxsize 1073741824
suffix "{base}"
rootdn "{root}"
rootpw {root_password}
directory {folder}/db
index objectClass eq
index uid,cn,mail eq,sub
index member eq
index entryUUID eq
access to attrs=userPassword by anonymous auth by * none
access to * by users read by anonymous auth by * none
"""


def why_not() -> str:
    """Why no server can be started here; "" = it can."""
    return "" if Path("/usr/sbin/slapd").exists() else "slapd is missing: apt-get install slapd ldap-utils"


@dataclass
class Slapd:
    """`people` and `groups` are added by `add`; addresses as a provider wants them."""

    folder: Path
    port: int
    tls_port: int
    process: subprocess.Popen[bytes] | None = None
    ca: str = ""
    size_limit: str = "unlimited"
    _addresses: list[str] = field(default_factory=list)

    @property
    def ldaps(self) -> str:
        return f"ldaps://localhost:{self.tls_port}"

    @property
    def ldap(self) -> str:
        return f"ldap://localhost:{self.port}"

    def settings(self, **more: object) -> DirectorySettings:
        """How a provider reaches it, with the service account."""
        return DirectorySettings.model_validate({
            "servers": [self.ldaps], "ca": self.ca, "bind_dn": SERVICE, "bind_password": SERVICE_PASSWORD, "user_base": PEOPLE,
            "group_base": GROUPS, "timeout_seconds": 3, "deadline_seconds": 10, **more,
        })  # fmt: skip

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["/usr/sbin/slapd", "-d", "0", "-f", self.folder / "slapd.conf", "-h", f"{self.ldap} {self.ldaps}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.tls_port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, "slapd ended at once"
                assert time.monotonic() < deadline, "slapd does not listen"
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
            self.process = None

    def load(self, ldif: str) -> None:
        """Into the stopped server, fast."""
        assert self.process is None
        subprocess.run(
            ["/usr/sbin/slapadd", "-q", "-f", self.folder / "slapd.conf"],
            input=ldif.encode(),
            check=True,
            capture_output=True,
            timeout=300,
        )

    def modify(self, ldif: str) -> None:
        """As the administrator of the running server."""
        subprocess.run(
            ["ldapmodify", "-x", "-H", self.ldap, "-D", ROOT, "-w", ROOT_PASSWORD], input=ldif.encode(), check=True, capture_output=True,
            timeout=60,
        )  # fmt: skip


def tree() -> str:
    """What every test's directory has."""
    return f"""dn: {BASE}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: {GROUPS}
objectClass: organizationalUnit
ou: groups

dn: {SERVICE}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {SERVICE_PASSWORD}
"""


def person(name: str, password: str, **attributes: str) -> str:
    """One entry; `name` is uid and must need no escaping."""
    shown = {"cn": name.title(), "sn": name.title(), "mail": f"{name}@example.org", **attributes}
    lines = "\n".join(f"{key}: {value}" for key, value in shown.items())
    return f"\ndn: uid={name},{PEOPLE}\nobjectClass: inetOrgPerson\nobjectClass: shadowAccount\nuid: {name}\nuserPassword: {password}\n{lines}\n"


def group(name: str, members: Iterable[str]) -> str:
    """`members` are DNs."""
    lines = "\n".join(f"member: {dn}" for dn in members)
    return f"\ndn: cn={name},{GROUPS}\nobjectClass: groupOfNames\ncn: {name}\n{lines}\n"


def user_dn(name: str) -> str:
    return f"uid={name},{PEOPLE}"


def group_dn(name: str) -> str:
    return f"cn={name},{GROUPS}"


@contextmanager
def running(
    folder: Path, ldif: str, *, names: tuple[str, ...] = ("localhost", "127.0.0.1"), size_limit: str = "unlimited"
) -> Iterator[Slapd]:
    """A server with the tree and `ldif` in it. `names`: what its certificate is for."""
    now = datetime.now(UTC)
    authority = ca.generate_ca("directory", now)
    pair = ca.issue_server(authority, list(names), now)
    (folder / "db").mkdir(parents=True)
    for name, content in (
        ("ca.crt", authority.certificate),
        ("server.crt", pair.certificate),
        ("server.key", pair.key),
    ):
        (folder / name).write_bytes(content)
    facts = {
        "folder": folder,
        "base": BASE,
        "root": ROOT,
        "root_password": ROOT_PASSWORD,
        "service": SERVICE,
        "size_limit": size_limit,
    }
    (folder / "slapd.conf").write_text(_CONF.format(**facts), encoding="utf-8")
    port, tls_port = _free_ports()
    server = Slapd(folder, port, tls_port, ca=authority.certificate.decode())
    try:
        server.load(tree() + ldif)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder / "db", ignore_errors=True)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]
