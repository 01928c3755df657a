"""The log file of each child: opened for appending, kept within bounds, and its last words when it dies. Used by `supervisor`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LIMIT_BYTES = 16 * 2**20
KEPT = 3


class Logs:
    """`<name>.log` and up to `KEPT` older ones in one folder.

    Children write straight into the file, so that a busy supervisor never slows them down. Rotation therefore copies and
    truncates; with O_APPEND the next line lands at the start of the emptied file. Lines written during the copy's last
    moment can be lost; the one who writes them is never.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def open(self, name: str) -> int:
        """A descriptor to hand to the child; the caller closes it. Raises OSError."""
        return os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def rotate(self, limit_bytes: int = LIMIT_BYTES) -> list[str]:
        """Rotate what has grown too large; returns those names. What there is no room to copy waits for the next call."""
        rotated = []
        for path in self._folder.glob("*.log"):
            if path.stat().st_size <= limit_bytes:
                continue
            for number in range(KEPT, 1, -1):
                older = path.with_name(f"{path.name}.{number - 1}")
                if older.exists():
                    older.replace(path.with_name(f"{path.name}.{number}"))
            copy = path.with_name(f"{path.name}.1")
            try:
                shutil.copyfile(path, copy)
            except OSError:
                # No room for it: half a copy would take the last of it. Nothing is lost, and the next round tries again.
                copy.unlink(missing_ok=True)
                continue
            copy.chmod(0o600)
            os.truncate(path, 0)
            rotated.append(path.stem)
        return rotated

    def size(self, name: str) -> int:
        """How long the log is now: where the next run's lines begin."""
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return 0

    def last_words(self, name: str, since: int = 0, lines: int = 1) -> str:
        """The end of what was written after `since`, on one line: most failures explain themselves there."""
        try:
            with self.path(name).open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(min(since, end), end - 4000))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])
