"""The signatures that are believed, of whichever issuer (RFC 8725 3.1: that is ours to choose, never the token's)."""

from __future__ import annotations

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""Signatures with public keys alone: with a shared secret, or none, a token would be anybody's word."""
