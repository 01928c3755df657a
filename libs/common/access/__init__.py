"""Who may do what, decided in process, so that the front door, the gateway and every owner give one answer.

`principal` (who calls), `rules` and `roles` (rights, resolved), `bindings` and `held` (what these give), `grants` (the snapshot that answers) with
`implied` and `escalation`, `lasting` and `emergencies` (what may be given on), `live` (kept current: start there), `explain` (why, with `sayings` and `indirect`), `token_text` (the form of a bearer token).
"""
