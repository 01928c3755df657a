"""Who may do what, decided in process: `principal` (who calls), `grants` (the compiler and its snapshot), `live` (kept current).

Used by the front door, the gateway and every owner alike, so that there is one answer.
"""
