"""What a process is spared: measured in a fresh interpreter, because this one has everything loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from libs.common.runtime import lean
from libs.common.version import VERSION


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "service", ["auth_proxy", "authz", "cluster_controller", "identity", "node_registry", "project"]
)
def test_a_service_that_serves_no_http_loads_neither_aiohttp_nor_what_terminals_need(service):
    assert (
        run(
            "import sys\n"
            "from libs.common.runtime import lean\n"
            "with lean.without(*lean.SERVICE):\n"
            f"    import libs.common.runtime.run, services.{service}.main\n"
            "print(*[m for m in ('aiohttp', 'rich', 'greenlet', 'opentelemetry.sdk', 'kubernetes_asyncio') if m in sys.modules])\n"
        )
        == []
    )


def test_the_agent_loads_nothing_of_a_service():
    assert (
        run(
            "import sys\n"
            "from libs.common.runtime import lean\n"
            "with lean.without(*lean.TERMINAL):\n"
            "    import services.agent.main\n"
            "heavy = ('cryptography', 'prometheus_client', 'rich', 'greenlet', 'yaml', 'libs.common.store', 'libs.common.resources')\n"
            "print(*[m for m in heavy if m in sys.modules])\n"
        )
        == []
    )


def test_what_was_hidden_can_be_imported_afterwards():
    assert run(
        "from libs.common.runtime import lean\n"
        "with lean.without('colorsys', 'sys'):\n"
        "    import sys\n"
        "    try:\n"
        "        import colorsys\n"
        "    except ImportError:\n"
        "        print('hidden')\n"
        "import colorsys\n"
        "print('there')\n"
    ) == ["hidden", "there"]


def test_nothing_is_hidden_for_ever_when_an_import_fails():
    def fail():
        with lean.without("colorsys_that_is_not"):
            import colorsys_that_is_not  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        fail()
    assert "colorsys_that_is_not" not in sys.modules


def test_the_version_is_that_of_the_distribution():
    from importlib import metadata

    assert metadata.version("herdsman") == VERSION
