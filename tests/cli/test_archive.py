"""Backup and restore of a data folder: all or nothing, private, and never over a hub that somebody may want."""

from __future__ import annotations

import pytest

from libs.common import errors
from services.cli.up.archive import read_archive, write_archive
from services.cli.up.layout import Layout
from services.cli.up.record import RunLock


@pytest.fixture
def layout(tmp_path) -> Layout:
    made = Layout(tmp_path / "data")
    made.make()
    (made.nats_store / "1.blk").write_bytes(bytes(range(256)) * 1000)
    made.ca_key.write_text("key")
    made.ca_key.chmod(0o600)
    (made.logs / "nats.log").write_text("noise")
    return made


def test_what_was_saved_comes_back_after_the_folder_is_lost(layout, tmp_path):
    file = tmp_path / "backup"
    assert write_archive(layout, file) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    other = Layout(tmp_path / "elsewhere" / "data")
    assert read_archive(other, file, replace=False) is None
    assert (other.nats_store / "1.blk").read_bytes() == bytes(range(256)) * 1000
    assert other.ca_key.stat().st_mode & 0o777 == 0o600
    assert other.root.stat().st_mode & 0o077 == 0
    assert not other.logs.exists()


def test_a_hub_is_moved_aside_only_when_asked_to(layout, tmp_path):
    file = tmp_path / "backup"
    write_archive(layout, file)
    layout.ca_key.write_text("newer")
    with pytest.raises(errors.Conflict, match="--replace"):
        read_archive(layout, file, replace=False)
    assert layout.ca_key.read_text() == "newer"
    aside = read_archive(layout, file, replace=True)
    assert aside is not None
    assert (aside / "pki" / "ca.key").read_text() == "newer"
    assert layout.ca_key.read_text() == "key"


@pytest.mark.parametrize("damage", ["cut", "flip", "rubbish", "gone"])
def test_a_damaged_file_changes_nothing(layout, tmp_path, damage):
    file = tmp_path / "backup"
    write_archive(layout, file)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    elif damage == "rubbish":
        file.write_text("rubbish")
    else:
        file.unlink()
    target = Layout(tmp_path / "target")
    with pytest.raises(errors.Invalid):
        read_archive(target, file, replace=False)
    assert not target.root.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".target")]


def test_a_running_hub_is_left_alone(layout, tmp_path):
    lock = RunLock(layout)
    lock.acquire()
    try:
        with pytest.raises(errors.Conflict, match="runs already"):
            write_archive(layout, tmp_path / "backup")
        with pytest.raises(errors.Conflict):
            read_archive(layout, tmp_path / "backup", replace=True)
    finally:
        lock.release()
    assert not (tmp_path / "backup").exists()


def test_a_folder_without_a_hub(tmp_path):
    with pytest.raises(errors.NotFound, match="holds no hub"):
        write_archive(Layout(tmp_path / "nothing"), tmp_path / "backup")
