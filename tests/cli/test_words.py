"""Pure parts: durations, tables, addresses, binding names, kubeconfig merging."""

from __future__ import annotations

import copy

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import errors
from services.cli import kubeconfigs
from services.cli.commands.grants import binding_name, describe, holder_of, scope_of
from services.cli.commands.roles import parse_rule
from services.cli.durations import format_elapsed, parse_duration
from services.cli.output import has_colour, render_table
from services.cli.settings import normalize_url

HUB = "https://hub.example"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("7d", 604800), (" 2H ", 7200)]
)
def test_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1w", "1 h", "0s", "99999d", "1.5h"])
def test_wrong_duration(text):
    with pytest.raises(click.BadParameter):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (4.24, "4.2 s"), (65, "1 min 5 s"), (3725, "1 h 2 min")]
)
def test_elapsed(seconds, text):
    assert format_elapsed(seconds) == text


@pytest.mark.parametrize(
    ("text", "url"),
    [("hub.example", "https://hub.example"), ("https://hub.example:8443/", "https://hub.example:8443"),
     ("https://[::1]:8443", "https://[::1]:8443"), (" https://HUB.example ", "https://hub.example")],
)  # fmt: skip
def test_address(text, url):
    assert normalize_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["http://hub.example", "https://", "https://u:p@hub.example", "https://hub.example/path", "https://hub:port"],
)
def test_wrong_address_says_how_to_write_it(text):
    with pytest.raises(errors.Invalid, match="https://"):
        normalize_url(text)


def test_table_has_no_trailing_blanks():
    assert render_table(["A", "B"], [["long", "x"], ["y", ""]]) == "A      B\nlong   x\ny"


@pytest.mark.parametrize(("variables", "colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour(variables, colour, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert has_colour(True) is colour
    assert has_colour(False) is False


_word = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=40)
_scope = st.one_of(
    _word.map(lambda w: (w, None, False)), _word.map(lambda w: (None, w, False)), st.just((None, None, True)),
    _word.filter(lambda w: w[0] != "-" != w[-1]).map(lambda w: (None, None, False, f"env={w}")),
)  # fmt: skip
_holder = st.one_of(_word.map(lambda w: (w, None)), _word.map(lambda w: (None, w)))


@settings(deadline=None)  # the first selector loads what reads them
@given(_holder, _word, _scope, _holder, _word, _scope)
def test_bindings_have_one_name_exactly_when_their_words_are_the_same(h1, r1, s1, h2, r2, s2):
    first = binding_name(holder_of(*h1), r1, scope_of(*s1))
    second = binding_name(holder_of(*h2), r2, scope_of(*s2))
    assert (first == second) == ((h1, r1, s1) == (h2, r2, s2))


def test_a_selector_is_the_same_however_it_is_written():
    one, other = (
        scope_of(None, None, False, text) for text in ("env=dev,!old,tier in (b,a)", "tier in (a, b),  env==dev,!old")
    )
    assert one == other
    assert binding_name({"user": "u"}, "r", one) == binding_name({"user": "u"}, "r", other)
    assert describe({"user": "u"}, "r", one) == "r for u (clusters with !old,env=dev,tier in (a,b))"


@pytest.mark.parametrize("text", ["env in (", "a>1", "!", "a=b c"])
def test_what_is_no_selector_is_told_before_anything_is_asked(text):
    with pytest.raises(click.UsageError):
        scope_of(None, None, False, text)


def _config(*names: str, token: str = "t1") -> kubeconfigs.Config:
    return {
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": n, "cluster": {"server": f"{HUB}/k8s/clusters/{n}"}} for n in names],
        "users": [{"name": "herdsman", "user": {"token": token}}],
        "contexts": [{"name": n, "context": {"cluster": n, "user": "herdsman"}} for n in names],
        "current-context": names[0],
    }  # fmt: skip


def _foreign() -> kubeconfigs.Config:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "mine", "preferences": {"colors": True},
        "clusters": [{"name": "mine", "cluster": {"server": "https://k8s.example"}}],
        "users": [{"name": "mine", "user": {"token": "secret"}}],
        "contexts": [{"name": "mine", "context": {"cluster": "mine", "user": "mine"}}],
    }  # fmt: skip


def test_merge_keeps_every_foreign_entry_and_the_current_context():
    before = _foreign()
    merged = kubeconfigs.merge(before, _config("prod", "test"), HUB)
    assert before == _foreign()
    assert merged["current-context"] == "mine"
    assert merged["preferences"] == {"colors": True}
    for section in ("clusters", "users", "contexts"):
        assert merged[section][0] == _foreign()[section][0]
    assert kubeconfigs.context_names(merged) == ["mine", "prod", "test"]


def test_merge_into_nothing_sets_no_current_context():
    assert "current-context" not in kubeconfigs.merge(None, _config("prod"), HUB)


def test_merging_again_replaces_our_entries_only():
    once = kubeconfigs.merge(_foreign(), _config("prod"), HUB)
    twice = kubeconfigs.merge(once, _config("prod", token="t2"), HUB)
    assert [u["user"]["token"] for u in twice["users"]] == ["secret", "t2"]
    assert kubeconfigs.merge(twice, _config("prod", token="t2"), HUB) == twice


def test_a_user_of_ours_that_no_context_names_any_more_goes_with_its_token():
    before = kubeconfigs.merge(_foreign(), _config("prod", token="t1"), HUB)
    fresh = _config("prod", token="t2")
    fresh["users"][0]["name"] = fresh["contexts"][0]["context"]["user"] = "another"
    merged = kubeconfigs.merge(before, fresh, HUB)
    assert "t1" not in kubeconfigs.render(merged)
    assert [user for user in merged["users"] if user["name"] != "another"] == _foreign()["users"]


@pytest.mark.parametrize("section", ["clusters", "users", "contexts"])
def test_an_entry_of_somebody_else_is_never_overwritten(section):
    mine = _foreign()
    inner = section.rstrip("s")
    entry = {"name": "herdsman" if section == "users" else "prod", inner: {}}
    mine[section].append(entry)
    with pytest.raises(errors.Conflict, match="did not come from"):
        kubeconfigs.merge(mine, _config("prod"), HUB)


def test_entries_of_another_hub_are_not_ours():
    other = kubeconfigs.merge(_foreign(), _config("prod"), "https://other.example")
    with pytest.raises(errors.Conflict):
        kubeconfigs.merge(other, _config("prod"), HUB)


def test_current_context_changes_when_asked_to():
    assert kubeconfigs.merge(_foreign(), _config("prod"), HUB, set_current="prod")["current-context"] == "prod"
    with pytest.raises(errors.NotFound):
        kubeconfigs.merge(_foreign(), _config("prod"), HUB, set_current="mine")


def test_file_is_private_backed_up_and_untouched_when_nothing_changes(tmp_path):
    file = tmp_path / "kube" / "config"
    assert kubeconfigs.merge_into_file(file, _config("prod"), HUB) is None
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()
    backup = kubeconfigs.merge_into_file(file, _config("prod", token="t2"), HUB)
    assert backup is not None
    assert backup.read_text() == before
    assert kubeconfigs.merge_into_file(file, _config("prod", token="t2"), HUB) is None
    assert sorted(p.name for p in file.parent.iterdir()) == ["config", "config.before-herdsman"]


def test_a_link_stays_a_link(tmp_path):
    target = tmp_path / "real"
    target.write_text(kubeconfigs.render(_foreign()))
    link = tmp_path / "config"
    link.symlink_to(target)
    kubeconfigs.merge_into_file(link, _config("prod"), HUB)
    assert link.is_symlink()
    assert "prod" in target.read_text()


def test_a_locked_file_is_left_alone(tmp_path, monkeypatch):
    file = tmp_path / "config"
    file.write_text(kubeconfigs.render(_foreign()))
    (tmp_path / "config.lock").touch()
    from services.cli.files import lock_beside

    with pytest.raises(errors.Timeout, match="delete it"), lock_beside(file, timeout_s=0.05):
        raise AssertionError("entered a locked section")
    assert file.read_text() == kubeconfigs.render(_foreign())


def test_damaged_file_is_named_and_kept(tmp_path):
    file = tmp_path / "config"
    file.write_text("a: [")
    with pytest.raises(errors.Invalid, match="config is not YAML"):
        kubeconfigs.merge_into_file(file, _config("prod"), HUB)
    assert file.read_text() == "a: ["
    assert not (tmp_path / "config.lock").exists()


@pytest.mark.parametrize(("setting", "expected"), [("", "home/.kube/config"), ("a:b", "b"), ("c:d", "c")])
def test_where_a_merge_goes(setting, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "b").touch()
    listed = ":".join(str(tmp_path / part) for part in setting.split(":") if part)
    assert kubeconfigs.default_file({"KUBECONFIG": listed}) == tmp_path / expected


def test_merge_does_not_change_its_arguments():
    fresh = _config("prod")
    before = copy.deepcopy(fresh)
    kubeconfigs.merge(_foreign(), fresh, HUB)
    assert fresh == before


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("get /healthz,/livez", [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez"]}]),
        ("* *", [{"verbs": ["*"], "apiGroups": [""], "resources": ["*"]}]),
        ("* *.*", [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]),
        ("update deployments/scale.apps", [{"verbs": ["update"], "apiGroups": ["apps"], "resources": ["deployments/scale"]}]),
        ("get ingresses.networking.k8s.io", [{"verbs": ["get"], "apiGroups": ["networking.k8s.io"], "resources": ["ingresses"]}]),
    ],
)  # fmt: skip
def test_rules_in_words(text, rules):
    assert parse_rule(text) == rules


@pytest.mark.parametrize(
    "text", ["", "get", "get pods web more", "get, pods", "get pods,,x", "get /healthz,pods", "get /healthz x"]
)
def test_what_is_no_rule(text):
    with pytest.raises(click.UsageError):
        parse_rule(text)
