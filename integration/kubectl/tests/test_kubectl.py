"""Every kubectl at hand on the gateway, with a stand-in for the front door."""

from __future__ import annotations

from integration.kubectl.tests.commands import KubectlCommands


class TestGateway(KubectlCommands):
    """On memory stores."""
