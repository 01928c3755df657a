"""A TLS server on loopback that says what a test plans, and the command line as somebody who is signed in there."""

from __future__ import annotations

import json
import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from libs.common import errors
from libs.common.crypto import ca
from services.cli.settings import Server, load_settings


class Answers:
    """What the server says, by method and path; each list is used up from its front, its last entry stays."""

    def __init__(self) -> None:
        self.planned: dict[tuple[str, str], list[tuple[int, object, dict[str, str]]]] = {}
        self.seen: list[tuple[str, str, dict[str, str], object]] = []

    def plan(self, method, path, status, body, **headers):
        self.planned.setdefault((method, path), []).append((status, body, headers))

    def status(self, method, path, error: errors.HerdsmanError, **headers):
        self.plan(method, path, error.http_status, error.to_status(), **headers)


@pytest.fixture(scope="module")
def authority():
    return ca.generate_ca("test", datetime.now(UTC))


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def server(authority, answers, tmp_path):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = self.path.partition("?")[0]
            answers.seen.append((self.command, self.path, dict(self.headers), body))
            planned = answers.planned.get((self.command, path))
            if not planned:
                self.send_error(418)
                return
            status, content, headers = planned.pop(0) if len(planned) > 1 else planned[0]
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

        def log_message(self, *args):
            pass

    pair = ca.issue_server(authority, ["localhost", "127.0.0.1"], datetime.now(UTC))
    (tmp_path / "s.crt").write_bytes(pair.certificate)
    (tmp_path / "s.key").write_bytes(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    httpd.handle_error = lambda *_: None
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield Server("test", f"https://127.0.0.1:{httpd.server_port}", authority.certificate.decode(), token="hm_a_b")
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def signed_in(server, monkeypatch, tmp_path):
    """The CLI as a person who is signed in there."""
    monkeypatch.setenv("HERDSMAN_CONFIG_DIR", str(tmp_path / "settings"))
    for name in ("HERDSMAN_URL", "HERDSMAN_CONTEXT", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    known = load_settings()
    known.put(server)
    known.save()
    return server
