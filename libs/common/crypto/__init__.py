"""Keys and signatures: `envelope` (who calls, signed by the front door), `ca` (our own certificates), `bundle` (which authorities a PEM holds), `secret` (a value that never prints)."""
