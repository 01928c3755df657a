"""For all integration tests: helpers outside test files whose assertions should explain themselves when they fail."""

from __future__ import annotations

import pytest

from tests.watchdog import pytest_configure, pytest_runtest_logreport, pytest_runtest_teardown  # noqa: F401 - hooks

pytest.register_assert_rewrite("integration.harness", "integration.kubectl.tests.commands")
