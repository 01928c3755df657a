"""Keeps out of a process what a library loads only because it happens to be there. Called by `__main__` modules, first of all.

structlog takes `rich` and `greenlet` when it finds them (4 MB), the NATS client takes aiohttp (13 MB and a tenth of a second), and
aiohttp takes the machine's certificate authorities (2 MB). All of them work without. In images most of this is absent; here it is
made to look so, where tools and services share one environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TERMINAL = ("rich", "greenlet")
"""What structlog takes along and no process of ours needs."""
SERVICE = (*TERMINAL, "aiohttp")
"""What a service needs neither, unless it speaks HTTP itself."""

_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Imports in this context behave as if `packages` were not installed. What is loaded already stays as it is."""
    hidden = [name for name in packages if name not in sys.modules]
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    for name in hidden:
        modules[name] = None  # `import name` raises ModuleNotFoundError (Python reference, "The module cache")
    try:
        yield
    finally:
        for name in hidden:
            if modules.get(name) is None:
                modules.pop(name, None)


@contextmanager
def without_system_trust() -> Iterator[None]:
    """TLS contexts that a library makes while it is imported trust nobody. Ours are made later, each with its own CA."""
    before = {name: os.environ.get(name) for name in _TRUST}
    os.environ.update(dict.fromkeys(_TRUST, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
