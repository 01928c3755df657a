"""Numbers that the worker processes and their small parent share. The parent imports nothing but the standard library."""

from __future__ import annotations

WORKERS = 1
LISTEN = "0.0.0.0:8443"
HEALTH_LISTEN = "127.0.0.1:0"
DRAIN_WINDOW_S = 20.0
REPLACE_WINDOW_S = 30.0
EXIT_CONFIG = 2
