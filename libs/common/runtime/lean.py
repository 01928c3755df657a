"""Keeps out of a process what a library imports only because it happens to be installed. Called by `__main__` modules, first of all.

structlog takes `rich` and `greenlet` when it finds them (4 MB), the NATS client takes aiohttp (13 MB and a tenth of a second); both
work without. In images the packages are absent; here they are made to look so, where tools and services share one environment.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

TERMINAL = ("rich", "greenlet")
"""What structlog takes along and no process of ours needs."""
SERVICE = (*TERMINAL, "aiohttp")
"""What a service needs neither, unless it speaks HTTP itself."""


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
