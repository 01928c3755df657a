"""For all integration tests: helpers outside test files whose assertions should explain themselves when they fail."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("integration.harness", "integration.kubectl.tests.commands")
