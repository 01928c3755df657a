"""A second real OpenID Connect provider (oidc-provider, from npm): it tells clients of sign-outs, and has sessions with names, which NanoIDP does not.

Its packages are installed from the lock file into a cache. Needs node and npm.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from integration.harness.hub import Hub, free_port
from libs.common.resources.providers import OidcSettings

_HERE = Path(__file__).parent
_FILES = ("package.json", "package-lock.json", "server.js")
CLIENT, SECRET = "herdsman", "a secret of the client"
MISSING = shutil.which("node") is None or shutil.which("npm") is None


@dataclass
class Issuer:
    """`log` is what it says: `told of ACCOUNT SESSION` for each client that was told of a sign-out and answered 200."""

    url: str
    log_file: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def settings(self, **more: object) -> dict[str, object]:
        given = {"issuer": self.url, "clientId": CLIENT, "clientSecret": SECRET, "scopes": ["profile"], **more}
        return OidcSettings.model_validate(given).to_document()


def environment() -> Path:
    """The folder of its program; made once for each content of the files."""
    cache = Path(os.environ.get("HERDSMAN_CACHE_DIR") or Path.home() / ".cache" / "herdsman")
    content = b"".join((_HERE / name).read_bytes() for name in _FILES)
    place = cache / "oidc-provider" / hashlib.sha256(content).hexdigest()[:16]
    if not (place / "complete").exists():
        place.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            shutil.copy(_HERE / name, place / name)
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=place, check=True, timeout=600)
        (place / "complete").touch()
    return place


@contextmanager
def running(hub: Hub, folder: Path, name: str = "sso", *, session_required: bool = True) -> Iterator[Issuer]:
    """For a hub that runs already: its provider is to be called `name`."""
    port = free_port()
    settings = {
        "port": port, "clientId": CLIENT, "clientSecret": SECRET, "callbacks": [f"{hub.url}/v1/callback/{name}"], "afterLogout": [f"{hub.url}/ui/"],
        "backChannel": f"{hub.url}/v1/back-channel-logout/{name}", "sessionRequired": session_required,
    }  # fmt: skip
    log_file = folder / "oidc-provider.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            ["node", "server.js", json.dumps(settings)], cwd=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(hub.ca_file)},
        )  # fmt: skip
    issuer = Issuer(f"http://127.0.0.1:{port}", log_file, process)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, log_file.read_text()
                assert time.monotonic() < deadline, "the issuer does not listen"
                time.sleep(0.1)
        yield issuer
    finally:
        issuer.stop()
