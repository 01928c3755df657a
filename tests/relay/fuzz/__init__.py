"""Fuzzing of everything that reads bytes of strangers: heads, bodies, whole connections, the guard, the handshake.

`corpus` holds what inputs begin with, `mutate` changes them, `referees` reads heads with other parsers, `heads`, `streams` and `readers`
hold the checks, `test_fuzz` runs them for a few seconds each, `deep` for as long as you like (`make fuzz`).
"""
