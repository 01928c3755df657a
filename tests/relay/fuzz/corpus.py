"""What inputs begin with: heads of real clients and servers, and heads that fooled some server once. Read from `tests/relay/corpus`.

A file holds one message, byte for byte; its name says what it is. A finding becomes a file there, so that it is tried for ever.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "corpus"


def load(kind: str) -> list[bytes]:
    """All messages of a kind: `request`, `response`, `smuggling`, `chunked`."""
    return [file.read_bytes() for file in sorted((FOLDER / kind).iterdir())]


def save_finding(kind: str, name: str, data: bytes) -> Path:
    """Write an input down, to be looked at, fixed and committed."""
    file = FOLDER / kind / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file
