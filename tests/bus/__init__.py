"""The bus: one suite of promises (`conformance`) for every implementation, and the account keys and permissions."""
