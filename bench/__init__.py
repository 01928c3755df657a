"""Measurements of what people feel and pay for, printed as a table. Never tests: machines are noisy, ratios hold.

`__main__` is `make bench`: the budgets of the whole in one run. `proxy` is `make bench-proxy`: the front door beside other proxies.
"""
