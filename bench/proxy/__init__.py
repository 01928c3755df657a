"""The front door beside other proxies that do the same work: `make bench-proxy`, or `python -m bench.proxy --help`.

Every part is a process of its own (`roles`): the proxy under test alone on one core, the API server's stand-in and the load
generator on the other, TLS on both sides, kept connections. The contestants take turns in rounds, so that what else the machine
does hits all of them alike; the figures are medians over the rounds, and their ratios are what counts.

`scene` says what is sent and answered, `stage` starts and ends the processes, `contestants` knows the proxies; `speed`, `bulk`,
`watches`, `isolation`, `revocation` and `workers` measure one thing each and return rows for `table`.
`profile` and `micro` show where the front door's time goes.
"""
