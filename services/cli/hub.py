"""The hub over HTTPS: one connection, standard library only, answers as documents and failures as our error families.

Used by every command that speaks to a hub. `resources` adds the Kubernetes-style paths. Reads are tried again with jitter
when the hub is briefly away; a write is tried again only when it provably was not sent.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from libs.common import errors
from services.cli.settings import Server

Document = dict[str, Any]
TIMEOUT_S = 30.0
_ATTEMPTS = 4
_MAX_ANSWER_BYTES = 64 * 2**20
FORM = "application/x-www-form-urlencoded"
_MERGE_PATCH = "application/merge-patch+json"
TABLE_ACCEPT = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Unusable(errors.Unavailable):
    """No hub can be reached this way, now or later: a name that does not resolve, a certificate that is not trusted."""


class Hub:
    """One hub. Use it as a context manager, or let the end of the process close the connection."""

    def __init__(
        self, server: Server, *, timeout_s: float = TIMEOUT_S, trace: Callable[[str], None] | None = None
    ) -> None:
        self.server = server
        self._timeout_s = timeout_s
        self._trace = trace
        self._connection: http.client.HTTPSConnection | None = None
        self._context: ssl.SSLContext | None = None
        self.last_date = ""
        """The Date header of the last answer: the hub's clock."""

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "application/json") -> Document:
        return self.request("GET", path, query=query, accept=accept)

    def post(self, path: str, body: Document, query: Mapping[str, str] | None = None) -> Document:
        return self.request("POST", path, body=body, query=query)

    def merge_patch(self, path: str, body: Document) -> Document:
        return self.request("PATCH", path, body=body, content_type=_MERGE_PATCH)

    def delete(self, path: str, body: Document | None = None) -> Document:
        return self.request("DELETE", path, body=body)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
        content_type: str = "application/json",
    ) -> Document:
        """One call; the answer is the JSON object in it. Raises a family of `libs.common.errors`."""
        raw = self.fetch(method, path, body=body, query=query, accept=accept, content_type=content_type)
        if not raw:
            return {}
        try:
            answer = json.loads(raw)
        except ValueError as error:
            raise self._no_hub("its answer is not JSON") from error
        if not isinstance(answer, dict):
            raise self._no_hub("its answer is not an object")
        return answer

    def fetch(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        query: Mapping[str, str] | None = None,
        accept: str = "*/*",
        content_type: str = "application/json",
    ) -> bytes:
        """One call; the answer's bytes. Raises a family of `libs.common.errors`."""
        target = path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else (urlencode(body) if content_type == FORM else json.dumps(body)).encode()
        headers = {"Accept": accept, "User-Agent": "herdsman-cli"}
        if data is not None:
            headers["Content-Type"] = content_type
        if self.server.token:
            headers["Authorization"] = f"Bearer {self.server.token}"
        safe = method == "GET"
        for attempt in range(1, _ATTEMPTS + 1):
            started = time.monotonic()
            try:
                status, answer, retry_after_s = self._exchange(method, target, data, headers)
            except Unusable:
                raise
            except errors.Unavailable as error:
                # Not sent (`retry_after_s` 0), or harmless to send twice.
                if attempt == _ATTEMPTS or not (safe or error.retry_after_s == 0):
                    raise errors.Unavailable(error.message) from error
                wait_s = random.uniform(0.1, 0.3 * 2**attempt)
            else:
                if self._trace:
                    self._trace(
                        f"{method} {self.server.url}{target} {status} {1000 * (time.monotonic() - started):.0f} ms"
                    )
                if status < 400:
                    return answer
                if attempt == _ATTEMPTS or retry_after_s is None or not (safe or status == 429) or retry_after_s > 5:
                    raise self._error(status, answer)
                wait_s = retry_after_s + random.uniform(0, 0.5)
            time.sleep(wait_s)
        raise AssertionError("unreachable")

    def watch(self, path: str, query: Mapping[str, str], *, timeout_s: int) -> Iterator[Document]:
        """Watch events of a collection for at most `timeout_s`, on a connection of its own. A break simply ends it: look again."""
        target = f"{path}?{urlencode({**query, 'watch': 'true', 'timeoutSeconds': str(timeout_s)})}"
        connection = self._open(timeout_s + 10.0)
        try:
            headers = {
                "Accept": "application/json",
                "User-Agent": "herdsman-cli",
                "Authorization": f"Bearer {self.server.token}",
            }
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                raise self._error(response.status, response.read(_MAX_ANSWER_BYTES))
            while line := response.readline():
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event
        except (OSError, http.client.HTTPException, ValueError):
            return
        finally:
            connection.close()

    def lines(self, path: str) -> Iterator[Any]:
        """An answer of JSON lines, each as it comes, on a connection of its own. Raises Unavailable when it breaks off."""
        connection = self._open(self._timeout_s)
        headers = {"User-Agent": "herdsman-cli", "Authorization": f"Bearer {self.server.token}"}
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                raise self._error(response.status, response.read(_MAX_ANSWER_BYTES))
            while line := response.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise errors.Unavailable(f"the answer of {self.server.url} broke off: {_words(error)}") from error
        finally:
            connection.close()

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, float | None]:
        """Send and receive once. Raises Unavailable with `retry_after_s=0` where nothing was sent."""
        reused = self._connection is not None
        connection = self._connection or self._connect()
        try:
            connection.request(method, target, body=data, headers=dict(headers))
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES + 1)
        except TimeoutError as error:
            self.close()
            raise errors.Timeout(
                f"{self.server.url} did not answer within {self._timeout_s:.0f} s: whether the request was carried out is unknown"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A kept connection that the hub closed while it was idle: the next attempt opens a new one.
            stale = reused and isinstance(
                error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError
            )
            raise errors.Unavailable(
                f"the connection to {self.server.url} broke: {_words(error)}",
                retry_after_s=0 if stale and method == "GET" else None,
            ) from error
        if len(answer) > _MAX_ANSWER_BYTES:
            raise self._no_hub(f"its answer is larger than {_MAX_ANSWER_BYTES >> 20} MiB")
        self.last_date = response.headers.get("Date", "")
        if response.will_close:
            self.close()
        header = response.headers.get("Retry-After", "")
        return response.status, answer, float(header) if header.isdigit() else None

    def _connect(self) -> http.client.HTTPSConnection:
        self._connection = self._open(self._timeout_s)
        return self._connection

    def _open(self, timeout_s: float) -> http.client.HTTPSConnection:
        parts = urlsplit(self.server.url)
        host, port = parts.hostname or "", parts.port or 443
        proxy = _proxy_for(host)
        context = self._tls()
        if proxy is None:
            connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        else:
            connection = http.client.HTTPSConnection(*proxy, timeout=timeout_s, context=context)
            connection.set_tunnel(host, port)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise Unusable(untrusted(self.server, error)) from error
        except ssl.SSLError as error:
            raise self._no_hub(f"it does not speak TLS as we know it ({error.reason or error})") from error
        except socket.gaierror as error:
            raise Unusable(
                f'cannot find the host "{host}": check the address {self.server.url} and your network'
            ) from error
        except TimeoutError as error:
            raise errors.Timeout(
                f"{self.server.url} does not accept connections: check the address, the network and any firewall"
            ) from error
        except OSError as error:
            via = f" through the proxy {proxy[0]}:{proxy[1]}" if proxy else ""
            raise errors.Unavailable(
                f"cannot connect to {self.server.url}{via}: {_words(error)}; check that the hub runs and the address is right",
                retry_after_s=0,
            ) from error
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            try:
                self._context = ssl.create_default_context(cadata=self.server.ca or None)
            except ssl.SSLError as error:
                raise errors.Invalid(
                    "the CA certificates of this hub cannot be read: sign in again with --ca-file"
                ) from error
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    def _error(self, status: int, answer: bytes) -> errors.HerdsmanError:
        """The error that a `Status` answer describes."""
        try:
            document = json.loads(answer)
        except ValueError:
            document = {}
        if isinstance(document, dict) and isinstance(document.get("error_description"), str):
            # RFC 6749 5.2: what the exchange of tokens answers.
            document = {"message": document["error_description"], "reason": str(document.get("error", ""))}
        elif not isinstance(document, dict) or document.get("kind") != "Status":
            document = {
                "message": f"{self.server.url} answered {status} {http.client.responses.get(status, '')}".strip()
            }
        details = document.get("details") or {}
        family = _family(status, str(document.get("reason", "")))
        message = str(document.get("message") or f"the hub answered {status}")
        if family is errors.Unauthenticated and self.server.token:
            message = f'your sign-in at {self.server.url} is no longer valid: run "herdsman login"'
        elif family is errors.Unauthenticated:
            message = message if document.get("reason") else f'{message}: run "herdsman login"'
        causes = [
            errors.Cause(str(c.get("field", "")), str(c.get("message", "")), str(c.get("reason", "")))
            for c in details.get("causes", ())
        ]
        return family(message, kind=str(details.get("kind", "")), name=str(details.get("name", "")), causes=causes)

    def _no_hub(self, what: str) -> Unusable:
        return Unusable(f"{self.server.url} does not look like a Herdsman hub: {what}")


def untrusted(server: Server, error: ssl.SSLCertVerificationError) -> str:
    """Why the hub's certificate is refused and how to get it right; there is no way to skip the check."""
    reason = error.verify_message or str(error)
    if "mismatch" in reason.lower():
        return f"the certificate of {server.url} is for another name ({reason}): use the address that the hub was installed with"
    if "not yet valid" in reason or "expired" in reason:
        return f"the certificate of {server.url} is refused ({reason}): check this machine's clock, then the hub's certificate"
    if server.ca:
        return f"the certificate of {server.url} was not signed by the CA that you gave ({reason}): ask for the hub's present CA certificate"
    return (
        f"the certificate of {server.url} is not trusted by this machine ({reason}): get the hub's CA certificate from the "
        'person who runs it ("herdsman up" keeps it in its data folder as pki/ca.crt) and add --ca-file FILE'
    )


def segment(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _family(status: int, reason: str) -> type[errors.HerdsmanError]:
    by_reason = next((f for f in errors.FAMILIES.values() if f.reason == reason and f.http_status == status), None)
    by_status = next(
        (f for f in errors.FAMILIES.values() if f.http_status == status and f is not errors.AlreadyExists), None
    )
    return by_reason or by_status or (errors.Unavailable if status in (502, 503) else errors.Internal)


def _proxy_for(host: str) -> tuple[str, int] | None:
    """The proxy from HTTPS_PROXY, unless NO_PROXY names the host."""
    setting = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if not setting:
        return None
    no_proxy = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    if _bypasses_proxy(host, no_proxy):
        return None
    parts = urlsplit(setting if "://" in setting else f"http://{setting}")
    if not parts.hostname:
        raise errors.Invalid(f"HTTPS_PROXY is not an address: {setting}")
    return parts.hostname, parts.port or 3128


def _bypasses_proxy(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: `*`, the name itself, or a domain that it is in (`.example` or `example`)."""
    suffixes = [part.strip().lstrip(".").lower() for part in no_proxy.split(",") if part.strip()]
    return "*" in suffixes or any(host.lower() == suffix or host.lower().endswith(f".{suffix}") for suffix in suffixes)


def _words(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
