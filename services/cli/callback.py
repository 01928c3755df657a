"""A listener on 127.0.0.1 for the one request that brings the answer of a sign-in from this machine's browser (RFC 8252 7.3, 8.3).

Whatever else comes to that port, from a page of another site or another program, is turned away and changes nothing.
"""

from __future__ import annotations

import hmac
import queue
import secrets
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from libs.common import errors

PATH = "/callback"
_MAX_PARAMETER = 512
_IDLE_S = 10.0
_MAX_CONNECTIONS = 32
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">\
<title>Herdsman</title></head><body><h1>{title}</h1><p>{text}</p></body></html>
"""
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the browser shows. `result` is the one-time code, empty for a refusal, None where the request was not the answer."""

    status: HTTPStatus
    title: str
    text: str
    result: str | None = None


class Callback:
    """Made by `listening`: the port, the state that an answer must carry, and the answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.state = secrets.token_urlsafe(32)
        self._results: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._taken = threading.Lock()

    def wait(self, timeout_s: float) -> str:
        """The one-time code. Raises Denied when the person refused, Timeout."""
        try:
            code = self._results.get(timeout=timeout_s)
        except queue.Empty:
            raise errors.Timeout(
                f"nothing came back from the browser within {timeout_s / 60:.0f} minutes: begin again, "
                "or add --device to sign in with a browser on another machine"
            ) from None
        if not code:
            raise errors.Denied("it was refused in the browser")
        return code

    def reply(self, target: str, host: str) -> Reply:
        """To a GET of `target`. The first answer alone has a result, which goes to `deliver` once the browser has its page."""
        if host != f"127.0.0.1:{self.port}":
            # A name that somebody made lead to this address (DNS rebinding).
            return Reply(HTTPStatus.MISDIRECTED_REQUEST, "Not here", "This address is for herdsman login alone.")
        parts = urlsplit(target)
        if parts.path != PATH:
            return Reply(HTTPStatus.NOT_FOUND, "Not found", "Here is nothing but the way back of herdsman login.")
        result = self._read(parts.query)
        if result is None:
            return Reply(
                HTTPStatus.BAD_REQUEST,
                "Not your sign-in",
                "This is not the answer that herdsman login waits for: use the page that it opened.",
            )
        if not self._taken.acquire(blocking=False):
            return Reply(HTTPStatus.GONE, "Answered already", "You can close this window.")
        if not result:
            return Reply(HTTPStatus.OK, "Refused", "Nothing was let in. You can close this window.", result)
        return Reply(HTTPStatus.OK, "Go on in your terminal", "You can close this window.", result)

    def deliver(self, result: str) -> None:
        """To whoever waits."""
        self._results.put(result)

    def _read(self, query: str) -> str | None:
        """The code, empty when the person refused; None for what is not the answer."""
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=8)
        except ValueError:
            return None
        given = dict(pairs)
        if len(given) != len(pairs) or any(len(value) > _MAX_PARAMETER for value in given.values()):
            return None
        if not hmac.compare_digest(given.pop("state", "").encode(errors="replace"), self.state.encode()):
            return None
        if given == {"error": "access_denied"}:
            return ""
        return given["code"] if given.keys() == {"code"} and given["code"] else None


@contextmanager
def listening() -> Iterator[Callback]:
    """Listen on a port that the system chooses until the block ends. Raises Unavailable."""
    try:
        server = _Server()
    except OSError as error:
        raise errors.Unavailable(
            f"cannot listen on 127.0.0.1 for the browser's answer ({error.strerror or error}): sign in with --device"
        ) from error
    server.callback = Callback(int(server.server_address[1]))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="callback", daemon=True)
    thread.start()
    try:
        yield server.callback
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(socketserver.ThreadingTCPServer):
    """A thread for each connection: browsers open some that they then don't use."""

    allow_reuse_address = False
    """Nobody else may take the port over."""
    daemon_threads = True
    block_on_close = False
    """An idle connection is not waited for."""
    callback: Callback

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that went away in the middle is nothing to tell a person about.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = _IDLE_S
    server: _Server

    def do_GET(self) -> None:
        reply = self.server.callback.reply(self.path, ",".join(self.headers.get_all("Host", [])))
        try:
            self._write(reply)
        finally:
            # Only now: the process may end on it.
            if reply.result is not None:
                self.server.callback.deliver(reply.result)

    def _write(self, reply: Reply) -> None:
        body = _PAGE.format(title=reply.title, text=reply.text).encode()
        self.send_response_only(reply.status)
        for name, value in {**_HEADERS, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the address holds the code."""
