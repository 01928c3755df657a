"""The agent against real API servers: what it leaves, what it survives, and who it refuses to be."""
