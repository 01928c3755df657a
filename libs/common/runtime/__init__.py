"""How a service process lives: `config` (its settings), `host` (what `build()` gets), `health` (probes), `run` (start to stop).

A service's `main.py` has `async def build(host)`, the whole wiring on one screen, and `__main__.py` calls `run`.
"""

from libs.common.runtime.config import ServiceConfig
from libs.common.runtime.host import Host
from libs.common.runtime.run import run

__all__ = ["Host", "ServiceConfig", "run"]
