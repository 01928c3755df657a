"""Container images without a registry or an image builder: docker-archive tarballs written by hand.

`image_from_root` turns any folder into an image; `pause_image` and `busybox_image` are the two that every full cluster
gets. The same input gives the same bytes, so a finished tarball is kept in the cache under the hash of its content.
Called by `run`, by the command's `image-import`, and by whoever needs an image of our own services.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from integration.kubelab.node_config import PAUSE_IMAGE
from integration.kubelab.paths import cache_dir
from libs.common.errors import Invalid, NotFound

BUSYBOX_IMAGE = "herdsman.dev/kubelab/busybox:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FORMAT = "1"  # raise it when the bytes written for the same content change
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How an image starts. `user` is numeric, `0` or `1000:1000`: images of ours need no passwd file."""

    name: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = "0"
    working_dir: str = "/"
    labels: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        repository, _, tag = self.name.rpartition(":")
        if not repository or not tag or "/" in tag or "." not in repository.split("/")[0]:
            raise Invalid(
                f'image name "{self.name}" must be complete, such as herdsman.dev/agent:1: containerd looks for exactly this name'
            )
        if not self.entrypoint and not self.command:
            raise Invalid(f'image "{self.name}" has neither entrypoint nor command: nothing could be started in it')


def image_from_root(
    root: Path,
    name: str,
    entrypoint: Sequence[str],
    *,
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    user: str = "0",
    working_dir: str = "/",
    labels: Mapping[str, str] | None = None,
    cache: Path | None = None,
) -> Path:
    """The tarball of an image whose only layer is `root`; owners become root, times become 1970.

    Ready for `ctr images import` and `docker load`. Takes regular files, folders and symbolic links (a hard link becomes
    a copy); anything else is refused, since an image with a device in it works on some machines only.
    """
    spec = ImageSpec(name, tuple(entrypoint), tuple(command), environment or {}, user, working_dir, labels or {})
    spec.check()
    folder = (cache or cache_dir() / "images").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{_fingerprint(root, spec)}.tar"
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix=".image-", dir=folder) as workspace:
            _write_archive(root, spec, Path(workspace)).replace(target)
    return target


def pause_image(cache: Path | None = None) -> Path:
    """The image that holds a pod's namespaces: one static program that sleeps."""
    with tempfile.TemporaryDirectory(prefix="kubelab-pause-") as scratch:
        root = Path(scratch)
        _install_busybox(root, ("sleep",))
        return image_from_root(root, PAUSE_IMAGE, ("/bin/sleep", "2147483647"), cache=cache)


def busybox_image(cache: Path | None = None) -> Path:
    """A small system with a shell: sh, tar (which `kubectl cp` needs), httpd, nc, wget and the other applets.

    Debian's build of `wget` crashes when it is given `-T`; `timeout 5 wget …` does the same and works.
    """
    busybox = find_busybox()
    listing = subprocess.run([busybox, "--list"], capture_output=True, text=True, timeout=10, check=True)
    with tempfile.TemporaryDirectory(prefix="kubelab-busybox-") as scratch:
        root = Path(scratch)
        _install_busybox(root, listing.stdout.split())
        for folder in ("etc", "root", "home", "var", "www", "proc", "sys", "dev"):
            (root / folder).mkdir()
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)
        (root / "etc" / "passwd").write_text(
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/sh\n"
        )
        (root / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
        return image_from_root(
            root,
            BUSYBOX_IMAGE,
            (),
            command=("/bin/sh",),
            environment={"PATH": "/bin:/sbin:/usr/bin:/usr/sbin"},
            cache=cache,
        )


def find_busybox() -> Path:
    """A busybox that needs no libraries."""
    for candidate in (shutil.which("busybox"), "/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox-static"):
        if candidate and Path(candidate).is_file() and is_static(Path(candidate)):
            return Path(candidate)
    raise NotFound(
        'a statically linked busybox is missing on this machine; "herdsman-kubelab doctor" tells how to get it'
    )


def is_static(program: Path) -> bool:
    """Whether a 64-bit little-endian ELF file names no interpreter (program header of type PT_INTERP)."""
    with program.open("rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            return False
        offset, size, count = (
            int.from_bytes(header[32:40], "little"),
            int.from_bytes(header[54:56], "little"),
            int.from_bytes(header[56:58], "little"),
        )
        file.seek(offset)
        table = file.read(size * count)
    return all(int.from_bytes(table[index * size : index * size + 4], "little") != 3 for index in range(count))


def _install_busybox(root: Path, applets: Sequence[str]) -> None:
    binaries = root / "bin"
    binaries.mkdir()
    shutil.copyfile(find_busybox(), binaries / "busybox")
    (binaries / "busybox").chmod(0o755)
    for applet in applets:
        if applet != "busybox":
            (binaries / applet).symlink_to("busybox")


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Every entry below `root` as (name in the image, path), parents first, in an order that depends on names only."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        here = Path(folder)
        if here != root:
            yield here.relative_to(root).as_posix(), here
        for name in sorted([*files, *links]):
            path = here / name
            yield path.relative_to(root).as_posix(), path


def _entry(name: str, path: Path) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    status = path.lstat()
    info.mode = status.st_mode & 0o7777
    if path.is_symlink():
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
    elif path.is_dir():
        info.type = tarfile.DIRTYPE
    elif path.is_file():
        info.size = status.st_size
    else:
        raise Invalid(f"{path} is neither file, folder nor symbolic link: leave it out of the image's root")
    return info


def _fingerprint(root: Path, spec: ImageSpec) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, _architecture(), _config(spec, "")], sort_keys=True).encode())
    for name, path in _walk(root):
        info = _entry(name, path)
        digest.update(json.dumps([name, info.mode, info.type.decode(), info.linkname, info.size]).encode())
        if info.isreg():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class _Hashing(io.RawIOBase):
    """A writer that knows the SHA-256 of what went through it."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        assert isinstance(data, (bytes, bytearray, memoryview))
        self.digest.update(data)
        return self._target.write(data)


def _write_archive(root: Path, spec: ImageSpec, workspace: Path) -> Path:
    layer = workspace / "layer.tar"
    with layer.open("wb") as file:
        hashing = _Hashing(file)
        with tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name, path in _walk(root):
                info = _entry(name, path)
                if info.isreg():
                    with path.open("rb") as content:
                        tar.addfile(info, content)
                else:
                    tar.addfile(info)
        layer_digest = hashing.digest.hexdigest()
    config = json.dumps(_config(spec, layer_digest), sort_keys=True, separators=(",", ":")).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{layer_digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [spec.name], "Layers": [layer_name]}]
    archive = workspace / "image.tar"
    with archive.open("wb") as output, tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add_bytes(tar, config_name, config)
        with layer.open("rb", buffering=_BLOCK) as content:
            info = tarfile.TarInfo(layer_name)
            info.size, info.mode = layer.stat().st_size, 0o644
            tar.addfile(info, content)
        _add_bytes(tar, "manifest.json", json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
    return archive


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    tar.addfile(info, io.BytesIO(content))


def _config(spec: ImageSpec, layer_digest: str) -> dict[str, object]:
    """The image configuration (OCI image specification, "Image Configuration")."""
    return {
        "architecture": _architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": list(spec.entrypoint) or None,
            "Cmd": list(spec.command) or None,
            "Env": [f"{key}={value}" for key, value in sorted(spec.environment.items())],
            "User": spec.user,
            "WorkingDir": spec.working_dir,
            "Labels": dict(spec.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "kubelab"}],
    }


def _architecture() -> str:
    return _ARCHITECTURES.get(platform.machine(), platform.machine())
