"""The kubectl exec plug-in without a hub: what is kept, when it is renewed, and what a person is told."""

from __future__ import annotations

import json
import stat
import threading
import time

import pytest

from libs.common import errors
from services.cli import exec_credential as plugin
from services.cli import kubeconfigs
from services.cli.settings import Server, Settings
from services.cli.token_store import Kept, TokenStore

HUB = "https://hub.example:8443"
ANA = Server("hub", HUB, user="ana", token="hm_login_secret")


class Asked:
    """Counts the questions to the hub; each answer lives for an hour from `now`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.times = 0
        self.warnings: list[str] = []
        self.error: errors.HerdsmanError | None = None

    def __call__(self, _server: Server, _cluster: str) -> Kept:
        self.times += 1
        if self.error is not None:
            raise self.error
        return Kept(f"hm_t{self.times}_s", self.now, self.now + 3600)

    def get(self, store: TokenStore, cluster: str = "prod", server: Server = ANA) -> str:
        return plugin.get_token(server, cluster, store, self, self.warnings.append, lambda: self.now).token


@pytest.fixture
def store(tmp_path) -> TokenStore:
    return TokenStore(HUB, {"HERDSMAN_CONFIG_DIR": str(tmp_path)})


def test_a_token_is_kept_privately_until_a_third_of_its_life_is_left(store):
    asked = Asked()
    assert [asked.get(store), asked.get(store)] == ["hm_t1_s", "hm_t1_s"]
    (file,) = store.folder.glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    asked.now += 2399
    assert asked.get(store) == "hm_t1_s"
    asked.now += 2
    assert asked.get(store) == "hm_t2_s"


def test_another_cluster_or_another_sign_in_has_a_token_of_its_own(store):
    asked = Asked()
    other = Server("hub", HUB, user="ana", token="hm_later_secret")
    assert len({asked.get(store), asked.get(store, ""), asked.get(store, "prod", other)}) == 3


def test_a_clock_that_was_set_back_makes_a_token_count_as_gone(store):
    asked = Asked()
    asked.get(store)
    asked.now -= 500
    assert asked.get(store) == "hm_t2_s"


def test_while_the_hub_is_away_a_kept_token_serves_to_its_end(store):
    asked = Asked()
    asked.get(store)
    asked.now += 3000
    asked.error = errors.Unavailable("cannot connect")
    assert asked.get(store) == "hm_t1_s"
    asked.now += 595
    with pytest.raises(errors.Unavailable):
        asked.get(store)


def test_an_ended_sign_in_is_never_papered_over_by_a_kept_token(store):
    asked = Asked()
    asked.get(store)
    asked.now += 3000
    asked.error = errors.Unauthenticated("ended")
    with pytest.raises(errors.Unauthenticated):
        asked.get(store)


def test_many_kubectls_at_once_ask_the_hub_once(store):
    asked = Asked()
    slow = asked.__class__.__call__

    def ask(server: Server, cluster: str) -> Kept:
        time.sleep(0.1)
        return slow(asked, server, cluster)

    got: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: got.append(plugin.get_token(ANA, "prod", store, ask, got.append, lambda: asked.now).token)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["hm_t1_s"] * 8
    assert asked.times == 1


def test_where_nothing_can_be_kept_kubectl_works_and_is_told(tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    asked = Asked()
    store = TokenStore(HUB, {"HERDSMAN_CONFIG_DIR": str(tmp_path)})
    assert asked.get(store) == "hm_t1_s"
    assert "asks the hub again" in asked.warnings[0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": "x"}', '{"token": "x", "got_at": "y", "ends_at": 1}'])
def test_a_damaged_file_counts_as_none(store, content):
    store.folder.mkdir(parents=True)
    store.file(ANA.token, "prod").write_text(content)
    assert Asked().get(store) == "hm_t1_s"


def test_signing_out_forgets_every_token_of_the_hub(store):
    asked = Asked()
    asked.get(store)
    asked.get(store, "other")
    store.clear()
    assert not list(store.folder.glob("*.json"))


def test_without_a_sign_in_one_is_told_what_to_run(tmp_path):
    known = Settings(tmp_path / "config.json", "hub", {"hub": ANA})
    assert plugin.find_sign_in(known, HUB, "ana") is ANA
    for hub, user in ((HUB, "bob"), ("https://other", "")):
        with pytest.raises(errors.Unauthenticated, match=f"run: herdsman login {hub}"):
            plugin.find_sign_in(known, hub, user)


def test_what_kubectl_says_names_the_hub_and_the_cluster():
    def info(**cluster: str) -> str:
        return json.dumps({"apiVersion": plugin.API_VERSION, "spec": {"interactive": True, "cluster": cluster or None}})

    assert plugin.parse_exec_info("") is None
    assert plugin.parse_exec_info(info()) is None
    assert plugin.parse_exec_info(info(server=f"{HUB}/k8s/clusters/prod")) == plugin.Wanted(HUB, "prod")
    assert plugin.parse_exec_info(info(server=HUB)) == plugin.Wanted(HUB, "")
    for bad in ("{", "[]", "1", "{}", '{"apiVersion": "client.authentication.k8s.io/v1beta1"}'):
        with pytest.raises(errors.Invalid):
            plugin.parse_exec_info(bad)


def test_the_answer_is_an_exec_credential():
    assert plugin.render(Kept("hm_t_s", 0, 60.9)) == {
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": "hm_t_s", "expirationTimestamp": "1970-01-01T00:01:00Z"},
    }  # fmt: skip


def test_a_kubeconfig_with_the_plug_in_holds_no_token_and_one_user_for_each_cluster():
    config = {
        "clusters": [{"name": "herdsman", "cluster": {"server": HUB}}, {"name": "prod", "cluster": {"server": f"{HUB}/k8s/clusters/prod"}}],
        "users": [{"name": "herdsman-ana", "user": {"token": "hm_t_s"}}],
        "contexts": [{"name": n, "context": {"cluster": n, "user": "herdsman-ana"}} for n in ("herdsman", "prod")],
    }  # fmt: skip
    filled = kubeconfigs.add_plugin(config, HUB, "ana", "herdsman", {})
    assert "hm_t_s" not in json.dumps(filled)
    assert [c["context"]["user"] for c in filled["contexts"]] == ["herdsman-ana", "herdsman-ana@prod"]
    plugins = [u["user"]["exec"] for u in filled["users"]]
    assert [p["args"][-2:] for p in plugins] == [["--user", "ana"], ["--cluster", "prod"]]
    assert all((p["apiVersion"], p["interactiveMode"]) == (plugin.API_VERSION, "IfAvailable") for p in plugins)
