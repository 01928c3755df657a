"""The processes of the benchmark, each started as `python -m bench.proxy.roles.NAME`; `talk` is how they speak with it."""
