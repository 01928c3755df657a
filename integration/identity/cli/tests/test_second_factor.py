"""`herdsman login` with a one-time code, against a real hub: the answer that asks for one crosses the bus and reaches the person."""

from __future__ import annotations

import json

import pytest

from integration.harness.hub import Hub
from integration.identity.device import code_of
from services.cli.hub import Hub as Client
from services.cli.settings import load_settings

pytestmark = pytest.mark.timeout(120)


async def test_a_sign_in_without_the_code_says_which_option_is_missing_and_with_it_works(tmp_path):
    async with Hub(tmp_path, "--no-local-cluster") as hub:
        ana = await hub.person("ana")
        password_file = hub.folder / "ana.password"
        password = password_file.read_text()
        (server,) = load_settings(ana.folder / "config.json").servers.values()
        with Client(server) as client:
            secret = client.post("/v1/second-factor", {"password": password})["secret"]
            confirmation = {"password": password, "code": code_of(secret)}
            recovery = client.post("/v1/second-factor/confirm", confirmation)["codes"]
        again = ("login", hub.url, "--user", "ana", "--password-file", str(password_file))
        refused = await ana.herdsman(*again)
        assert refused.code == 4, refused.err
        assert "one-time code" in refused.err
        assert "--one-time-code CODE" in refused.err
        wrong = await ana.herdsman(*again, "--one-time-code", "000000")
        assert wrong.code == 4
        accepted = await ana.herdsman(*again, "--one-time-code", recovery[0])
        assert accepted.code == 0, accepted.err
        assert json.loads(await ana.must("whoami", "-o", "json"))["status"]["userInfo"]["username"] == "ana"
