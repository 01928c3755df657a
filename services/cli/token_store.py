"""Short-lived tokens that `herdsman credential` keeps between two runs of kubectl: files (0600) in the platform's state folder.

A file belongs to one sign-in and one cluster: after another sign-in nobody is served what the one before was given. The
sign-in itself stays in `settings`. Used by `exec_credential`, emptied by `herdsman logout`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libs.common import errors
from services.cli.files import explain_os_error, write_private


class CannotLock(errors.Unavailable):
    """The state folder can't be written to, so nothing can be kept there."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A token, when it was got and when it ends: seconds of this machine's clock, so that a clock that is wrong does no harm."""

    token: str = field(repr=False)
    got_at: float
    ends_at: float

    def left_s(self, now: float) -> float:
        """Seconds that it is good for; 0 also when the clock was set back to before it was got."""
        return max(0.0, self.ends_at - now) if now >= self.got_at - 5 else 0.0

    def is_fresh(self, now: float) -> bool:
        """Whether more than a third of its life is left."""
        return self.left_s(now) * 3 > self.ends_at - self.got_at


class TokenStore:
    """The tokens of one hub. What can't be read counts as not there: a token is only a request away."""

    def __init__(self, hub_url: str, environ: Mapping[str, str] = os.environ) -> None:
        self.folder = state_folder(environ) / "credentials" / _digest(hub_url)

    def file(self, sign_in: str, cluster: str) -> Path:
        """Where the token for a cluster (empty = the hub) lies that was made with this sign-in."""
        return self.folder / f"{_digest(f'{sign_in} {cluster}')}.json"

    def read(self, file: Path) -> Kept | None:
        try:
            found = json.loads(file.read_bytes())
            return Kept(str(found["token"]), float(found["got_at"]), float(found["ends_at"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, file: Path, kept: Kept) -> None:
        """Keep a token; those that have ended are removed. Raises Unavailable."""
        document = {"token": kept.token, "got_at": kept.got_at, "ends_at": kept.ends_at}
        write_private(file, json.dumps(document) + "\n")
        for other in self.folder.glob("*.json"):
            old = self.read(other)
            if other != file and (old is None or old.ends_at < kept.got_at):
                other.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, file: Path, timeout_s: float = 40.0) -> Iterator[None]:
        """One process at a time asks the hub for this token; the lock ends with its holder. Raises Timeout, CannotLock."""
        path = file.with_suffix(".lock")
        deadline = time.monotonic() + timeout_s
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CannotLock(explain_os_error("lock", path, error).message) from error
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise errors.Timeout(
                            f"another herdsman has been asking the hub for {timeout_s:.0f} s: try again, or end it ({path})"
                        ) from error
                    time.sleep(random.uniform(0.01, 0.05))
            yield
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Forget every token of this hub. Raises Unavailable."""
        # The lock files stay: whoever waits at one must meet the next holder there.
        for file in self.folder.glob("*.json"):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise explain_os_error("delete", file, error) from error


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Beside the settings where their folder was chosen, else the platform's folder for state."""
    if explicit := environ.get("HERDSMAN_CONFIG_DIR"):
        return Path(explicit).expanduser() / "state"
    import platformdirs

    return Path(platformdirs.user_state_dir("herdsman", appauthor=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
