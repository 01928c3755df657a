"""What survives a restart: whole or not at all, readable by nobody else, one agent to a folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from libs.common import errors
from services.agent.state import FileState, Identity, Kept, pack_kept, parse_kept

IDENTITY = Identity("SUSEED", "UPUB", "jwt", "c", "uid", "2026-01-01T00:00:00+00:00", 60, "digest")
KEPT = Kept({"roles": ("h", [{"kind": "X"}])}, [("v1", "ConfigMap")], False)


async def test_identity_and_desired_set_are_found_again(tmp_path: Path) -> None:
    state = FileState(tmp_path / "s")
    assert await state.load_identity() is None
    assert (await state.load_kept()).parts == {}
    await state.save_identity(IDENTITY)
    await state.save_kept(KEPT)
    state.close()
    again = FileState(tmp_path / "s")
    assert await again.load_identity() == IDENTITY
    assert await again.load_kept() == KEPT
    again.close()


async def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    state = FileState(tmp_path / "s")
    await state.save_identity(IDENTITY)
    assert {oct(p.stat().st_mode & 0o777) for p in (tmp_path / "s").iterdir()} == {"0o600"}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    state.close()


async def test_a_second_agent_is_kept_out_of_the_folder(tmp_path: Path) -> None:
    first = FileState(tmp_path)
    with pytest.raises(errors.Conflict, match="another agent runs"):
        FileState(tmp_path)
    first.close()
    FileState(tmp_path).close()


async def test_detaching_forgets_everything(tmp_path: Path) -> None:
    state = FileState(tmp_path)
    await state.save_identity(IDENTITY)
    await state.save_kept(KEPT)
    await state.delete()
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["lock"]
    assert await state.load_identity() is None
    state.close()


async def test_a_damaged_identity_is_an_error_and_a_damaged_set_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("{")
    (tmp_path / "desired").write_bytes(b"\x1f\x8bnonsense")
    state = FileState(tmp_path)
    with pytest.raises(errors.Invalid, match="damaged"):
        await state.load_identity()
    assert await state.load_kept() == Kept()
    state.close()


def test_a_cut_set_is_nothing_whatever_the_cut() -> None:
    data = pack_kept(KEPT)
    for length in range(len(data)):
        assert parse_kept(data[:length]) == Kept()
    assert parse_kept(data) == KEPT


async def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.Invalid, match="cannot use the state folder"):
        FileState(tmp_path / "file" / "s")


def test_the_seed_is_never_printed() -> None:
    assert "SUSEED" not in repr(IDENTITY)
    assert "jwt" not in repr(IDENTITY)
    assert os.linesep not in repr(IDENTITY)
