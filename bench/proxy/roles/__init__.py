"""The processes of the benchmark, each started as `python -m bench.proxy.roles.NAME JSON`; `talk` is how they speak with it."""
