"""Image tarballs: the same input gives the same bytes, and the digests in them are right."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from integration.kubelab import images
from libs.common.errors import Invalid

NAME = "herdsman.dev/test/tool:1"


def make_root(root: Path, names: list[str]) -> Path:
    root.mkdir()
    (root / "sub").mkdir()
    for name in names:
        (root / name).write_text(f"content of {name}")
        (root / name).chmod(0o755)
    (root / "link").symlink_to("sub/one")
    (root / "folder-link").symlink_to("sub")
    return root


def build(root: Path, cache: Path, **options: object) -> Path:
    return images.image_from_root(root, NAME, ["/tool"], cache=cache, **options)  # type: ignore[arg-type]


def test_same_content_gives_same_bytes_whatever_its_age_and_order(tmp_path: Path) -> None:
    first = make_root(tmp_path / "a", ["sub/one", "two", "three"])
    second = make_root(tmp_path / "b", ["three", "two", "sub/one"])
    os.utime(second / "two", (1, 1))
    one, two = build(first, tmp_path / "c1"), build(second, tmp_path / "c2")
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("change", ["content", "mode", "link", "environment"])
def test_any_difference_gives_another_image(tmp_path: Path, change: str) -> None:
    root = make_root(tmp_path / "a", ["sub/one", "two"])
    before = build(root, tmp_path / "cache")
    options = {}
    if change == "content":
        (root / "two").write_text("different words")
    elif change == "mode":
        (root / "two").chmod(0o700)
    elif change == "link":
        (root / "link").unlink()
        (root / "link").symlink_to("two")
    else:
        options = {"environment": {"A": "b"}}
    assert build(root, tmp_path / "cache", **options) != before


def test_finished_image_is_taken_from_the_cache(tmp_path: Path) -> None:
    root = make_root(tmp_path / "a", ["two"])
    first = build(root, tmp_path / "cache")
    written = first.stat().st_mtime_ns
    assert build(root, tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == written
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]


def test_manifest_config_and_layer_fit_together(tmp_path: Path) -> None:
    root = make_root(tmp_path / "a", ["sub/one"])
    with tarfile.open(build(root, tmp_path / "cache", user="1000:1000")) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        config_bytes = archive.extractfile(manifest["Config"]).read()
        layer_bytes = archive.extractfile(manifest["Layers"][0]).read()
        config = json.loads(config_bytes)
        with tarfile.open(fileobj=archive.extractfile(manifest["Layers"][0])) as layer:
            members = {member.name: member for member in layer}
    assert manifest["RepoTags"] == [NAME]
    assert manifest["Config"] == f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer_bytes).hexdigest()}"]
    assert config["config"]["Entrypoint"] == ["/tool"]
    assert config["config"]["User"] == "1000:1000"
    assert set(members) == {"sub", "sub/one", "link", "folder-link"}
    assert members["folder-link"].issym()
    assert {(m.uid, m.gid, m.mtime) for m in members.values()} == {(0, 0, 0)}


def test_special_file_is_refused(tmp_path: Path) -> None:
    root = make_root(tmp_path / "a", ["two"])
    os.mkfifo(root / "pipe")
    with pytest.raises(Invalid, match="neither file, folder nor symbolic link"):
        build(root, tmp_path / "cache")


@pytest.mark.parametrize("name", ["tool", "tool:1", "herdsman.dev/tool", "herdsman/tool:1"])
def test_incomplete_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid, match="must be complete"):
        images.image_from_root(tmp_path, name, ["/tool"], cache=tmp_path)
