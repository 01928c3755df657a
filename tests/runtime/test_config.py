"""Settings: a file, overridden by the environment, and every fault named."""

from __future__ import annotations

import json

import pytest

from libs.common.runtime.config import ConfigError, ServiceConfig, load

GOOD = {"nats_url": ["nats://127.0.0.1:4222"], "identity_public_key": "/keys/identity.pub"}


def write(tmp_path, values):
    file = tmp_path / "config.json"
    file.write_text(values if isinstance(values, str) else json.dumps(values))
    return file


def test_the_environment_overrides_the_file(tmp_path):
    config = load(
        ServiceConfig, write(tmp_path, GOOD), {"HERDSMAN_LOG_LEVEL": "debug", "HERDSMAN_NATS_URL": '["nats://b"]'}
    )
    assert (config.log_level, config.nats_url) == ("debug", ["nats://b"])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "one JSON object"),
        ({**GOOD, "nats_ur": []}, "nats_ur"),
        ({"nats_url": GOOD["nats_url"]}, "identity_public_key"),
        ({**GOOD, "log_level": "loud"}, "log_level"),
        ({**GOOD, "stop_timeout_s": 0}, "stop_timeout_s"),
    ],
)
def test_each_fault_is_named(tmp_path, values, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load(ServiceConfig, write(tmp_path, values), {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        load(ServiceConfig, tmp_path / "absent.json", {})
