"""Released bytes stay readable: each kept example of each version is read by today's models and says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from libs.common.bus import wire
from libs.common.generator.documents import message_models

GOLDEN = Path(__file__).resolve().parents[2] / "proto" / "golden"
MODELS = {model.__name__: model for model in message_models()}
FILES = sorted(GOLDEN.glob("*/*.msgpack"))


def test_there_are_examples():
    assert {f.stem for f in FILES} >= set(MODELS)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_released_bytes_are_read_as_they_were_meant(file: Path):
    read = wire.parse(MODELS[file.stem], file.read_bytes()).model_dump(mode="json", by_alias=True)
    meant = json.loads(file.with_suffix(".json").read_text())
    assert {key: read[key] for key in meant} == meant
