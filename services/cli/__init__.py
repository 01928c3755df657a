"""The `herdsman` command: a client of the hub for people and scripts, and the supervisor that runs a whole hub on one machine.

Reading order: `main` (the table of commands, exit codes), `lazy` (why `--help` is quick), `app` (what every command gets),
`settings` and `hub` (which server, and how it is spoken to), `output`, then `commands/` (one file for each wish) and `up/`
(`herdsman up`). It uses the hub's public HTTP API and nothing private: all that it does to objects, kubectl can do.

Invariants: machine output goes to stdout and everything else to stderr; nothing asks a question without a terminal; every
failure is one sentence that says what to do, and an exit code that a script can tell apart.
"""
