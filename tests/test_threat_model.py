"""The threat model names tests: each must be there, and each advisory that a test is named by must be in the table."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "threat-model.md"
_NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
_ROW = re.compile(r"^\| [^|]*(?:CVE-|GHSA-|smuggling|kube-oidc-proxy)[^|]*\|[^|]*\|(.*)\|$", re.MULTILINE)
_ADVISORY = re.compile(r"def test_cve_(\d{4})_(\d+)_")


def test_every_test_that_the_threat_model_names_is_there():
    named = _NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert len(named) > 50
    missing = [
        f"{file}::{name}" for file, name in named
        if not (ROOT / file).is_file() or not re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]  # fmt: skip
    assert not missing


def test_every_advisory_in_the_table_has_a_test():
    table = PAGE.read_text(encoding="utf-8").partition("## What went wrong elsewhere")[2]
    rows = _ROW.findall(table)
    assert len(rows) > 30
    assert all(_NAMED.search(tests) for tests in rows)


def test_every_advisory_that_a_test_is_named_by_is_in_the_table():
    page = PAGE.read_text(encoding="utf-8")
    sources = [
        file.read_text(encoding="utf-8")
        for folder in ("tests", "integration")
        for file in (ROOT / folder).rglob("test_*.py")
    ]
    named = {f"CVE-{year}-{number}" for text in sources for year, number in _ADVISORY.findall(text)}
    assert named
    assert not {advisory for advisory in named if advisory not in page}
