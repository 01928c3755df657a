"""The parent of the worker processes, without processes: its settings, sockets, and the metrics of many as one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from services.auth_proxy import inherited, worker_metrics, workers
from services.auth_proxy.config import AuthProxyConfig


def settings(tmp_path, environment=None, **values):
    file = tmp_path / "auth_proxy.json"
    file.write_text(json.dumps(values))
    return workers.read_settings(file, environment or {})


def test_settings_of_the_parent_are_those_of_the_workers_by_default(tmp_path):
    made = settings(tmp_path)
    fields = AuthProxyConfig.model_fields
    assert made.count == fields["workers"].default == 1
    assert f"{made.host}:{made.port}" == fields["listen"].default
    assert f"{made.health_host}:{made.health_port}" == fields["health_listen"].default
    assert made.drain_s == max(fields["drain_window_s"].default, fields["replace_window_s"].default)


def test_the_environment_overrides_the_file(tmp_path):
    made = settings(
        tmp_path,
        {"HERDSMAN_WORKERS": "3", "HERDSMAN_LISTEN": "[::1]:0"},
        workers=2,
        listen="127.0.0.1:9",
        log_format="console",
    )
    assert (made.count, made.host, made.port, made.as_json) == (3, "::1", 0, False)


@pytest.mark.parametrize("zero", [{"workers": 0}, {}])
def test_zero_workers_are_as_many_as_cores(tmp_path, zero):
    environment = {} if zero else {"HERDSMAN_WORKERS": "0"}
    assert settings(tmp_path, environment, **zero).count == workers.count_cores() >= 1


def test_a_quota_of_the_control_group_bounds_the_cores(tmp_path):
    quota = tmp_path / "cpu.max"
    quota.write_text("50000 100000\n")
    assert workers.count_cores(quota) == 1
    quota.write_text("max 100000\n")
    assert workers.count_cores(quota) == workers.count_cores(tmp_path / "missing")


@pytest.mark.parametrize("values", [{"workers": "many"}, {"listen": "nowhere"}, {"drain_window_s": "long"}])
def test_settings_that_cannot_be_used_are_a_sentence(tmp_path, values):
    with pytest.raises(ValueError, match=r"must be a number|is no address"):
        settings(tmp_path, **values)


def test_every_slot_has_a_socket_of_its_own_on_one_port():
    first = workers.bind("127.0.0.1", 0)
    port = first[0].getsockname()[1]
    second = workers.bind("127.0.0.1", port)
    try:
        assert first[0].fileno() != second[0].fileno()
        assert second[0].getsockname() == first[0].getsockname()
        assert not first[0].get_inheritable()
    finally:
        for sock in first + second:
            sock.close()


def test_a_process_takes_sockets_that_were_given_to_it_alone():
    assert inherited.is_worker({"LISTEN_FDS": "1", "LISTEN_PID": str(inherited.os.getpid())})
    assert not inherited.is_worker({"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert not inherited.is_worker({})


def test_the_parent_loads_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import services.auth_proxy.workers; "
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["libs", "services"]


ONE = """# HELP calls_total Calls
# TYPE calls_total counter
calls_total{verb="get",code="2xx"} 3.0
calls_total{verb="watch",code="2xx"} 1.0
# HELP open Open
# TYPE open gauge
open 2.0
"""


def test_each_family_stands_once_and_each_sample_names_its_worker():
    text = worker_metrics.merge({1: ONE.replace("3.0", "5.0"), 0: ONE})
    assert text.splitlines() == [
        "# HELP calls_total Calls",
        "# TYPE calls_total counter",
        'calls_total{worker="0",verb="get",code="2xx"} 3.0',
        'calls_total{worker="0",verb="watch",code="2xx"} 1.0',
        'calls_total{worker="1",verb="get",code="2xx"} 5.0',
        'calls_total{worker="1",verb="watch",code="2xx"} 1.0',
        "# HELP open Open",
        "# TYPE open gauge",
        'open{worker="0"} 2.0',
        'open{worker="1"} 2.0',
    ]


def test_the_merged_text_is_read_by_prometheus_own_parser():
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(worker_metrics.merge({0: ONE, 3: ONE})))
    assert {(s.name, s.labels["worker"]) for f in families for s in f.samples} == {
        ("calls_total", "0"), ("calls_total", "3"), ("open", "0"), ("open", "3"),
    }  # fmt: skip


def test_no_workers_are_an_empty_text():
    assert worker_metrics.merge({}) == ""
