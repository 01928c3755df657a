"""Real directories for tests of identity providers."""
