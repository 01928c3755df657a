"""How a service process lives: `config` (its settings), `host` (what `build()` gets), `health` (probes), `run` (start to stop).

A service's `main.py` has `async def build(host)`, the whole wiring on one screen, and its `__main__.py` calls `run.run` under
`lean.without`. Nothing is imported here: the agent and the command line want one small module of this package, not a service.
"""
