"""Canaries: a marker in every secret input, then none of them in any log, any stored byte, or any answer of the API."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from integration.flows.test_bad_input import token_of

pytestmark = pytest.mark.asyncio(loop_scope="package")
PASSWORD = "canary-password-7f3a91c2"
WRONG = "canary-wrong-55d0b8e4"
MISTYPED = "canary-typed-into-the-name-9c1e"


async def test_no_secret_is_in_logs_on_disk_or_in_answers(bare_hub, tmp_path):
    admin = await bare_hub.admin()
    password, wrong = tmp_path / "password", tmp_path / "wrong"
    password.write_text(PASSWORD)
    wrong.write_text(WRONG)
    await admin.must("user", "create", "canary", "--password-file", str(password))
    refused = await admin.herdsman(
        "login", bare_hub.url, "--ca-file", str(bare_hub.ca_file), "--user", "canary", "--password-file", str(wrong)
    )
    assert refused.code != 0
    assert WRONG not in refused.err + refused.out
    mistyped = await admin.herdsman(
        "login", bare_hub.url, "--ca-file", str(bare_hub.ca_file), "--user", MISTYPED, "--password-file", str(wrong)
    )
    assert mistyped.code != 0
    created = await admin.must("token", "create", "--description", "canary")
    api_token = re.search(r"hm_[a-z2-7]+_([a-z2-7]+)", created)
    assert api_token is not None
    imported = await admin.must("cluster", "import", "canary", "--no-wait")
    registration = re.search(r"/v1/import/hmr_[A-Za-z0-9]+_([A-Za-z0-9_-]+)\.yaml", imported)
    assert registration is not None
    status, manifest = await bare_hub.get(registration[0])
    assert status == 200
    assert registration[1].encode() in manifest
    signed_in = (await token_of(admin)).split("_", 2)[2]
    generated = Path(bare_hub.record()["admin_password_file"]).read_text().strip()
    secrets = [PASSWORD, WRONG, MISTYPED, api_token[1], registration[1], signed_in, generated]
    assert all(len(secret) > 12 for secret in secrets)
    answers = await admin.sees("herdsman", "get", "users,tokens,registrationtokens,clusters", "-o", "json")
    answers += await admin.sees("herdsman", "get", "users,tokens,registrationtokens", "-o", "wide")
    assert "secretHash" not in answers
    assert "argon2" not in answers
    assert not [secret for secret in secrets if secret in answers]
    await asyncio.sleep(1.5)  # the audit log is written in batches
    looked_at = 0
    for folder in ("logs", "nats"):
        for file in (bare_hub.data / folder).rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                looked_at += 1
                assert not [s for s in secrets if s.encode() in content], f"{file} holds a secret"
    assert looked_at > 10
    # What is stored of the audit log is compressed: it is read as its reader sees it.
    exported = tmp_path / "audit.jsonl"
    await admin.must("audit", "export", "--output", str(exported))
    audit = exported.read_text(encoding="utf-8")
    assert not [secret for secret in secrets if secret in audit]
    assert "/v1/import/hmr_" in audit, "the look-up was written down, with its token cut"
    assert json.loads(await admin.sees("herdsman", "get", "tokens", "-o", "json"))["items"]
    await admin.must("cluster", "delete", "canary", "--force", "--yes", "--no-wait")
    await admin.must("user", "delete", "canary", "--yes")
