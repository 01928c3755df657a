"""Keys and signatures: `envelope` (who calls, signed by the front door), `ca` (our own certificates), `secret` (a value that never prints)."""
