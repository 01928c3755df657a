from __future__ import annotations

import pytest

from libs.common import errors
from libs.common.crypto.sealed import KeyRing, render_ring

OLD, NEW = KeyRing({"old": b"o" * 32}), KeyRing({"new": b"n" * 32, "old": b"o" * 32})


def test_a_sealed_secret_opens_at_its_own_place_alone():
    sealed = OLD.seal("pässword", "u1/clientSecret")
    assert "word" not in sealed
    assert OLD.open(sealed, "u1/clientSecret") == "pässword"
    assert OLD.seal("pässword", "u1/clientSecret") != sealed
    for place in ("u2/clientSecret", "u1/bindPassword", ""):
        with pytest.raises(errors.Internal, match="does not open"):
            OLD.open(sealed, place)


def test_a_new_first_key_seals_and_the_old_one_still_opens():
    sealed = OLD.seal("secret", "p")
    assert NEW.open(sealed, "p") == "secret"
    assert not NEW.is_current(sealed)
    fresh = NEW.seal("secret", "p")
    assert NEW.is_current(fresh)
    with pytest.raises(errors.Internal, match="which the key ring lacks"):
        OLD.open(fresh, "p")


@pytest.mark.parametrize(
    "change",
    [lambda s: s[:-4] + "AAAA", lambda s: s[:-40], lambda s: "s2" + s[2:], lambda s: "", lambda s: "s1.old.%%"],
)
def test_what_was_changed_does_not_open(change):
    with pytest.raises(errors.Internal):
        OLD.open(change(OLD.seal("secret", "p")), "p")


def test_a_ring_is_read_from_its_file(tmp_path):
    file = tmp_path / "ring"
    file.write_text("# newest first\n" + render_ring("k2") + render_ring("k1"))
    assert KeyRing.load(file).seal("x", "p").startswith("s1.k2.")


@pytest.mark.parametrize("text", ["", "k1", "k1 AAAA", "k1 !!!", "K1 " + "A" * 44, render_ring("a") * 2])
def test_a_broken_ring_is_refused_without_showing_it(tmp_path, text):
    file = tmp_path / "ring"
    file.write_text(text)
    with pytest.raises(ValueError, match="key") as caught:
        KeyRing.load(file)
    assert "AAAA" not in str(caught.value)


def test_a_missing_ring_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        KeyRing.load(tmp_path / "nowhere")
