"""Flows through the whole hub, as people go through it: `herdsman up`, the CLI, kubectl, a real cluster."""
