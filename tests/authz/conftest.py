from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from libs.common.observe import metrics


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """Figures of this test alone: a registry takes each of them once."""
    registry = CollectorRegistry()
    monkeypatch.setattr(metrics, "registry", lambda: registry)
    return registry
