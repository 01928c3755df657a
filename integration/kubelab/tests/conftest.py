"""Clusters for the tests of this folder, and the reasons for which they are skipped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.kubelab import doctor

_LACKS = {"kubelab": "all", "full": "full"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [(item, mark) for item in items for mark in _LACKS if item.get_closest_marker(mark)]
    if not marked:
        return
    findings = doctor.examine()
    for item, mark in marked:
        needed = {"all", _LACKS[mark]}
        missing = [finding for finding in findings if not finding.ok and finding.needed_by in needed]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"{missing[0].what}: {missing[0].detail}"))


@pytest.fixture(scope="module")
def state_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kubelab-test-") as folder:
        yield Path(folder)
