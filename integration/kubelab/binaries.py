"""Finding the programs of a cluster: an explicit folder, then PATH, then the cache that `build` fills.

A source counts only when it has every program that the wanted kind of cluster needs: mixing an etcd from here with an
API server from there gives version pairs that nobody has tried. Called by `run`, `cli` and `build`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.kubelab.paths import cache_dir, read_json
from libs.common.errors import NotFound

MINIMAL = ("etcd", "kube-apiserver")
PLAIN = (*MINIMAL, "kube-controller-manager")
FULL = (*PLAIN, "kube-scheduler", "kubelet", "kube-proxy")
SOURCE = Path(__file__).parent / "binary"
PROGRAM = "kubelab"
RECORD = "source.json"


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one cluster, all from one source."""

    folder: Mapping[str, Path]
    origin: str

    def __getitem__(self, name: str) -> Path:
        return self.folder[name]


def source_hash(source: Path = SOURCE) -> str:
    """What decides about a rebuild, apart from the Go version."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        content = (source / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def cache_entry(version: str, source: Path = SOURCE) -> Path:
    """The cache folder that a build with this Go version fills."""
    key = hashlib.sha256(f"{source_hash(source)} {version}".encode()).hexdigest()
    return cache_dir() / key


def cached(source: Path = SOURCE) -> Path | None:
    """The folder of a finished build of the present source, by whatever Go, or None."""
    wanted = source_hash(source)
    for record in sorted(cache_dir().glob(f"*/{RECORD}")):
        if read_json(record).get("source") == wanted and (record.parent / PROGRAM).is_file():
            return record.parent
    return None


def find(required: Sequence[str], environ: Mapping[str, str] = os.environ) -> Binaries:
    """All `required` programs from the first source that has them; NotFound tells what each source lacks."""
    lacks: list[str] = []
    if assets := environ.get("KUBEBUILDER_ASSETS"):
        found = {name: path for name in required if _is_program(path := Path(assets) / name)}
        if len(found) == len(required):
            return Binaries(found, f"KUBEBUILDER_ASSETS={assets}")
        lacks.append(f"KUBEBUILDER_ASSETS lacks {_missing(required, found)}")
    found = {name: Path(where) for name in required if (where := shutil.which(name, path=environ.get("PATH")))}
    if len(found) == len(required):
        return Binaries(found, "PATH")
    lacks.append(f"PATH lacks {_missing(required, found)}")
    if entry := cached():
        return Binaries({name: entry / name for name in required}, f"cache {entry}")
    lacks.append("the cache has no build of this version")
    raise NotFound(f'no Kubernetes programs: {"; ".join(lacks)}; run "herdsman-kubelab build"')


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _missing(required: Sequence[str], found: Mapping[str, Path]) -> str:
    return ", ".join(name for name in required if name not in found)
