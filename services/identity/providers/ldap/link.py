"""One connection to one LDAP server, used by one thread at a time. The only module that knows ldap3, whose errors end here.

Referrals are never followed: a directory that refers elsewhere does not decide whom our passwords are shown to.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import ldap3
from ldap3.core.exceptions import LDAPException
from ldap3.core.tls import Tls
from pyasn1.error import PyAsn1Error

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.providers import DirectorySettings
from services.identity.providers.ldap.account import Attributes

PAGE = 500
_PAGED = "1.2.840.113556.1.4.319"
_WRONG_CREDENTIALS, _NO_SUCH_OBJECT = 49, 32
_SUCCESS, _TIME_LIMIT, _SIZE_LIMIT, _ADMIN_LIMIT = 0, 3, 4, 11


@dataclass(frozen=True, slots=True)
class Entry:
    dn: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Result:
    """`cut`: the server or the limit left some out."""

    entries: tuple[Entry, ...]
    cut: bool = False


class WrongCredentials(Exception):
    """The server refused the name and password; `detail` is for the log, and Windows' code in it for `provider`."""

    def __init__(self, detail: str) -> None:
        super().__init__("refused")
        self.detail = detail


class _Tls(Tls):  # type: ignore[misc]
    """TLS with the name in the certificate checked by OpenSSL itself: ldap3's own check leans on a function that Python has dropped."""

    def __init__(self, host: str, context: ssl.SSLContext) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._host = host
        self._context = context

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:
        # In place before the handshake: `abort` must reach it while a server says nothing.
        connection.socket = self._context.wrap_socket(
            connection.socket, server_hostname=self._host, do_handshake_on_connect=False
        )
        if do_handshake:
            connection.socket.do_handshake()


class Link:
    """Opened by `open`; every method raises Unavailable with a sentence for whoever looks after the directory."""

    def __init__(self, server: str, settings: DirectorySettings) -> None:
        parts = urlsplit(server)
        self.server = server
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "ldaps"
        self._port = parts.port or (636 if self._secure else 389)
        self._settings = settings
        self._connection: ldap3.Connection | None = None

    def open(self, dn: str, password: str) -> None:
        """Connect, TLS first, and bind. Raises WrongCredentials, Unavailable, Invalid where passwords would cross in plain text."""
        settings = self._settings
        if not (self._secure or settings.start_tls or settings.allow_plain_text):
            raise errors.Invalid(
                f"{self.server} is not encrypted: use ldaps://, or startTls; allowPlainText only on a network that nobody listens to"
            )
        try:
            tls = _Tls(self._host, ssl.create_default_context(cadata=settings.ca or None))
            server = ldap3.Server(
                self._host, self._port, use_ssl=self._secure, tls=tls, get_info=ldap3.NONE, connect_timeout=settings.timeout_seconds,
                allowed_referral_hosts=[],
            )  # fmt: skip
            connection = self._connection = ldap3.Connection(
                server, dn or None, password or None, client_strategy=ldap3.SAFE_SYNC, auto_referrals=False, check_names=False,
                read_only=True, receive_timeout=math.ceil(settings.timeout_seconds), return_empty_attributes=False,
            )  # fmt: skip
            connection.open()
            if settings.start_tls and not self._secure and not connection.start_tls():
                raise errors.Unavailable(f"{self.server} refused to start TLS")
        except (LDAPException, OSError, ssl.SSLError) as exc:
            self.close()
            raise errors.Unavailable(self._explain(exc)) from exc
        except BaseException:
            self.close()
            raise
        try:
            self._bind(connection)
        except BaseException:
            self.close()
            raise

    def search(
        self, base: str, text: str, attributes: Sequence[str], *, limit: int, scope: str = ldap3.SUBTREE
    ) -> Result:
        """Entries by pages, at most `limit`. A base that is not there holds nothing."""
        entries: list[Entry] = []
        for page, cut in self._pages(base, text, attributes, min(PAGE, limit + 1), scope):
            entries += page
            if len(entries) > limit or cut:
                return Result(tuple(entries[:limit]), cut=True)
        return Result(tuple(entries))

    def abort(self) -> None:
        """End whatever another thread waits for here."""
        connection = self._connection
        if connection is not None and connection.socket is not None:
            try:
                connection.socket.shutdown(2)
            except OSError:
                return  # gone already

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        sock = connection.socket
        try:
            connection.unbind()
        except (LDAPException, OSError, AttributeError) as exc:
            log.get("identity").debug("directory_goodbye_failed", server=self.server, error=str(exc))
        if sock is not None:
            sock.close()

    # ── inside ──

    def _bind(self, connection: ldap3.Connection) -> None:
        try:
            status, result, _, _ = connection.bind()
        except (LDAPException, OSError) as exc:
            raise errors.Unavailable(self._explain(exc)) from exc
        if status:
            return
        if result["result"] in (_WRONG_CREDENTIALS, _NO_SUCH_OBJECT):
            raise WrongCredentials(str(result.get("message", ""))[:200])
        raise errors.Unavailable(
            f"{self.server} refused to let us in: {result.get('description')} {str(result.get('message', ''))[:200]}".strip()
        )

    def _pages(
        self, base: str, text: str, attributes: Sequence[str], size: int, scope: str
    ) -> Iterator[tuple[list[Entry], bool]]:
        cookie: bytes | None = None
        while True:
            connection = self._connection
            if connection is None:
                raise errors.Unavailable(f"the connection to {self.server} is closed")
            try:
                _, result, response, _ = connection.search(
                    base, text, search_scope=scope, attributes=list(attributes), paged_size=size, paged_cookie=cookie,
                    dereference_aliases=ldap3.DEREF_NEVER, time_limit=self._settings.timeout_seconds,
                )  # fmt: skip
            except (LDAPException, PyAsn1Error, OSError) as exc:
                self.close()
                raise errors.Unavailable(self._explain(exc)) from exc
            code = result["result"]
            if code == _NO_SUCH_OBJECT:
                return
            if code not in (_SUCCESS, _TIME_LIMIT, _SIZE_LIMIT, _ADMIN_LIMIT):
                raise errors.Unavailable(
                    f"{self.server} refused a search below {base}: {result.get('description')} {str(result.get('message', ''))[:200]}".strip()
                )
            page = [
                Entry(item["dn"], {name.lower(): values for name, values in item["raw_attributes"].items()})
                for item in response or ()
                if item.get("type") == "searchResEntry"
            ]
            cookie = ((result.get("controls") or {}).get(_PAGED) or {}).get("value", {}).get("cookie")
            yield page, code != _SUCCESS
            if not cookie or code != _SUCCESS:
                return

    def _explain(self, exc: BaseException) -> str:
        text = str(exc).replace("\n", " ")[:300]
        if "certificate verify failed" in text:
            if "expired" in text:
                return f"the certificate of {self.server} has expired: renew it, or check the clocks"
            if "mismatch" in text:
                return f"the certificate of {self.server} is for another name: use a name that it holds"
            return f"the certificate of {self.server} is not signed by an authority that is trusted here: give its CA as `ca`"
        if "timed out" in text:
            return f"{self.server} did not answer within {self._settings.timeout_seconds} s"
        return f"{self.server} cannot be reached: {text}"
