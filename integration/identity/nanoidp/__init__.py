"""A real OpenID Connect provider (NanoIDP, from PyPI) on loopback, in an environment of its own that is cached by its lock file."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from libs.common.resources.providers import OidcSettings

_LOCK = Path(__file__).with_name("requirements.txt")
CLIENT, SECRET = "herdsman", "client-secret"


@dataclass
class Issuer:
    """`url` is what its tokens call it."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def settings(self, **more: object) -> OidcSettings:
        return OidcSettings.model_validate({
            "issuer": self.url, "client_id": CLIENT, "client_secret": SECRET, "scopes": ["profile", "email", "offline_access"],
            "timeout_seconds": 5, **more,
        })  # fmt: skip

    def start(self) -> None:
        port = int(self.url.rpartition(":")[2])
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [environment() / "nanoidp", "--config", self.folder / "config", "--port", str(port)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, cwd=self.folder,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "the issuer does not listen"
                time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
            self.process = None


def environment() -> Path:
    """The folder of its programs; made once for each content of the lock file."""
    cache = Path(os.environ.get("HERDSMAN_CACHE_DIR") or Path.home() / ".cache" / "herdsman")
    place = cache / "nanoidp" / hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]
    if not (place / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True, timeout=120)
        subprocess.run(
            [place / "bin" / "pip", "install", "--quiet", "--require-hashes", "-r", _LOCK], check=True, timeout=600
        )
        (place / "complete").touch()
    return place / "bin"


@contextmanager
def running(folder: Path, people: dict[str, dict[str, object]]) -> Iterator[Issuer]:
    """`people`: name → password, email, groups."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    config = folder / "config"
    config.mkdir(parents=True)
    settings = {
        "config_version": 1, "server": {"host": "127.0.0.1", "port": port},
        "oauth": {"issuer": url, "audience": CLIENT, "clients": [{"client_id": CLIENT, "client_secret": SECRET, "description": "the hub"}]},
    }  # fmt: skip
    (config / "settings.yaml").write_text(yaml.safe_dump(settings))
    (config / "users.yaml").write_text(yaml.safe_dump({"config_version": 1, "users": people}))
    issuer = Issuer(url, folder)
    try:
        issuer.start()
        yield issuer
    finally:
        issuer.stop()
