"""The agent's container image, made of the Python that runs this: no registry, no builder, no network.

A small root file system in three steps: choose every file (`_choose`, a table from path in the image to file here), copy
and compile them, and hand the folder to `images.image_from_root`. What was chosen is hashed first, so an unchanged agent
costs one reading of its files. Called by the command `agent-image` and by tests that run the agent as a pod.

  /usr/bin/python, /usr/lib/python3.N    the interpreter and the part of its library that a service can need
  /lib/…, /lib64/…                       the dynamic loader and the shared libraries that anything here asks for
  /opt/herdsman                          the project's dependencies, `libs` and `services.agent`
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

from integration.kubelab.images import image_from_root
from integration.kubelab.paths import cache_dir
from libs.common.errors import NotFound, Timeout, Unavailable
from libs.common.version import VERSION

AGENT_IMAGE = f"herdsman.dev/agent:{VERSION}"
AGENT_USER = "65532"
_REPOSITORY = Path(__file__).resolve().parents[2]
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LIBRARY = PurePosixPath("usr/lib", _PYTHON)
_HOME = PurePosixPath("opt/herdsman")
_RECIPE = "1"  # raise it when the same files are to become another image
_ATTEMPTS = 3
_KEPT = 4  # finished agent images that stay in the cache
_COMPILE_TIMEOUT_S = 300.0

# Parts of the standard library that belong to people at a keyboard, to building software or to its own tests.
_UNUSED = re.compile(
    r"(test|tests|idlelib|tkinter|turtledemo|turtle\.py|lib2to3|ensurepip|pydoc_data|venv|curses|sqlite3|dbm|distutils"
    r"|site-packages|dist-packages|sitecustomize\.py|usercustomize\.py|config-.*"
    r"|lib-dynload/(_test|_ctypes_test|xx|_tkinter|_curses|_sqlite3|_dbm|_gdbm|readline|nis|ossaudiodev).*)(/.*)?"
)
_NOT_RUN = {".pyc", ".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".hash"}
_INSTALLER_NOTES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}  # they tell of this machine

# glibc opens these by name at run time, so that no file asks for them: name services (older releases) and thread exit.
_OPENED_BY_NAME = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1")
_NEEDED = re.compile(r"^\s+(?:(?P<name>\S+) => )?(?P<path>/\S+|not found)", re.MULTILINE)

_WRITTEN = {
    "etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\nherdsman:x:{AGENT_USER}:{AGENT_USER}:agent:/:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nherdsman:x:{AGENT_USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # Not an installation, but the agent asks for its version as one.
    f"{_HOME}/herdsman-{VERSION}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: herdsman\nVersion: {VERSION}\n",
}
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONPATH": f"/{_HOME}",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
}

# Runs in a fresh interpreter, one file after another: bytecode depends a little on what the compiling process has loaded.
_COMPILER = """
import json, py_compile, sys
for path, shown in json.load(sys.stdin):
    py_compile.compile(path, dfile=shown, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def agent_image(cache: Path | None = None) -> Path:
    """The tarball of `AGENT_IMAGE` for this machine's architecture; from the cache when nothing in it has changed."""
    folder = (cache or cache_dir() / "images").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    vanished: FileNotFoundError | None = None
    for _ in range(_ATTEMPTS):
        try:
            chosen = _choose()
            known = folder / f"agent-{_fingerprint(chosen)}.tar"
            if known.exists() or _build(chosen, known):
                known.touch()  # the tarball's time is that of its last use
                return known.resolve()
        except FileNotFoundError as error:
            vanished = error  # it was there when it was chosen
    raise Unavailable(
        f"the agent's files changed {_ATTEMPTS} times while its image was made: try again when they rest"
    ) from vanished


def _build(chosen: Mapping[str, Path], known: Path) -> bool:
    """Makes the tarball that `known` then leads to. False if a file was changed meanwhile: `known` would be a lie."""
    with tempfile.TemporaryDirectory(prefix="kubelab-agent-") as scratch:
        root = Path(scratch)
        _fill(root, chosen)
        if known.name != f"agent-{_fingerprint({name: root / name for name in chosen})}.tar":
            return False
        _compile(root, chosen)
        tarball = image_from_root(
            root,
            AGENT_IMAGE,
            ("/usr/bin/python", "-m", "services.agent"),
            environment=_ENVIRONMENT,
            user=f"{AGENT_USER}:{AGENT_USER}",
            labels={"org.opencontainers.image.title": "herdsman-agent", "org.opencontainers.image.version": VERSION},
            cache=known.parent,
        )
    _remember(known, tarball)
    return True


def dependency_names(requirements: Iterable[str]) -> list[str]:
    """The installed distributions that the requirements lead to, for this Python and without extras nobody asked for."""
    found: dict[str, str] = {}
    open_ = [(Requirement(text), "") for text in requirements]
    visited: set[tuple[str, str]] = set()
    while open_:
        requirement, extra = open_.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        distribution = _distribution(requirement.name)
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        found[key] = distribution.name
        for wanted in {"", *requirement.extras} - {done for name, done in visited if name == key}:
            visited.add((key, wanted))
            open_ += [(Requirement(text), wanted) for text in distribution.requires or ()]
    return [found[key] for key in sorted(found)]


def _choose() -> dict[str, Path]:
    """Every file of the image that is copied: where it goes, relative to the root, and where it is."""
    interpreter = _interpreter()
    chosen = {f"usr/bin/{_PYTHON}": interpreter}
    chosen |= {
        f"{_LIBRARY}/{name}": path for name, path in _files(Path(os.__file__).parent) if not _UNUSED.fullmatch(name)
    }
    project = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text())["project"]
    for name in dependency_names(project["dependencies"]):
        chosen |= {f"{_HOME}/{inside}": path for inside, path in _distribution_files(name)}
    for part in ("libs", "services/agent"):
        chosen |= {f"{_HOME}/{part}/{name}": path for name, path in _files(_REPOSITORY / part)}
    chosen[f"{_HOME}/services/__init__.py"] = _REPOSITORY / "services" / "__init__.py"
    binaries = [interpreter, *(path for path in chosen.values() if ".so" in path.suffixes)]
    return dict(sorted({**chosen, **_shared_libraries(binaries)}.items()))


def _interpreter() -> Path:
    """The real one, not the environment's copy of it: its library lies beside it."""
    path = Path(sys.base_exec_prefix, "bin", _PYTHON).resolve()
    if not path.is_file():
        raise NotFound(f"{path} is missing: this Python is installed in a way that no image can be made of")
    return path


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and path.suffix not in _NOT_RUN and "__pycache__" not in name.parts:
            yield name.as_posix(), path


@functools.cache
def _distribution(name: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise NotFound(
            f'the Python package "{name}", which the agent needs, is not installed: run "make venv"'
        ) from error


def _distribution_files(name: str) -> Iterator[tuple[str, Path]]:
    distribution = _distribution(name)
    if distribution.files is None:
        raise NotFound(f'the Python package "{name}" has no list of its files: install it again with pip')
    for file in distribution.files:
        path = Path(str(distribution.locate_file(file)))
        hidden = {"..", "__pycache__", "tests"} & set(file.parts) or file.suffix in _NOT_RUN
        if not hidden and file.name not in _INSTALLER_NOTES and path.is_file():
            yield file.as_posix(), path


def _shared_libraries(binaries: list[Path]) -> dict[str, Path]:
    """The loader at its own place, and beside libc everything that the binaries ask for from outside their own folders.

    The folder of libc is the one that its loader searches by itself, so the image needs no loader cache and no variable.
    """
    listing = _run(["ldd", *map(str, binaries)], timeout_s=60.0)
    if missing := [match["name"] for match in _NEEDED.finditer(listing) if match["path"] == "not found"]:
        raise NotFound(f"shared libraries are missing on this machine: {', '.join(sorted(set(missing)))}")
    carried = {path.resolve() for path in binaries}  # wheels bring libraries along and find them by relative paths
    found = {match["name"]: Path(match["path"]) for match in _NEEDED.finditer(listing) if match["name"]}
    loaders = {match["path"] for match in _NEEDED.finditer(listing) if not match["name"]}
    if "libc.so.6" not in found or len(loaders) != 1:
        raise Unavailable("the agent's image can be made with a Python for glibc only, and ldd shows another one here")
    search = found["libc.so.6"].parent
    found |= {name: search / name for name in _OPENED_BY_NAME if (search / name).exists()}
    placed = {f"{search}/{name}".lstrip("/"): path.resolve() for name, path in found.items()}
    placed = {name: path for name, path in placed.items() if path not in carried}
    return placed | {loader.lstrip("/"): Path(loader).resolve() for loader in loaders}


def _fingerprint(chosen: Mapping[str, Path]) -> str:
    settings = [_RECIPE, sys.version, AGENT_IMAGE, _ENVIRONMENT, _WRITTEN]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, path in chosen.items():
        digest.update(f"\n{name}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _fill(root: Path, chosen: Mapping[str, Path]) -> None:
    """Copies with modes that depend neither on this machine's umask nor on how a package was installed."""
    for name, source in chosen.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if name.startswith(("usr/bin/", "lib")) else 0o644)
    for name, content in _WRITTEN.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
        (root / name).chmod(0o644)
    (root / "usr" / "bin").mkdir(parents=True, exist_ok=True)
    for link in ("python", "python3"):
        (root / "usr" / "bin" / link).symlink_to(_PYTHON)
    (root / "tmp").mkdir()


def _compile(root: Path, chosen: Mapping[str, Path]) -> None:
    """Bytecode that is used without asking for the source's time: the root file system is read-only, start is quick."""
    sources = [(str(root / name), f"/{name}") for name in chosen if name.endswith(".py")]
    # The order of a frozenset constant in bytecode follows the hash seed.
    environment = {"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", "")}
    _run([str(_interpreter()), "-S", "-c", _COMPILER], json.dumps(sources), environment, timeout_s=_COMPILE_TIMEOUT_S)
    for folder in root.rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)
        elif folder.suffix == ".pyc":
            folder.chmod(0o644)
    (root / "tmp").chmod(0o1777)


def _remember(known: Path, tarball: Path) -> None:
    """Notes what the chosen files became, and lets go of images that older code became."""
    link = known.with_name(f".{known.name}.{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(tarball.name)
    link.replace(known)
    notes = [path for path in known.parent.glob("agent-*.tar") if path.is_symlink()]
    alive = sorted((path for path in notes if path.exists()), key=lambda path: path.stat().st_mtime, reverse=True)
    kept = {known, *[path for path in alive if path != known][: _KEPT - 1]}
    tarballs = {path.resolve() for path in kept}
    for path in notes:
        if path not in kept:
            if path.resolve() not in tarballs:
                path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _run(command: list[str], stdin: str = "", environment: Mapping[str, str] | None = None, *, timeout_s: float) -> str:
    try:
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise NotFound(f"the program {command[0]} is missing on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise Timeout(f"{command[0]} did not end within {timeout_s:.0f} s") from error
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        raise Unavailable(f"{command[0]} failed: {words[-1] if words else f'code {done.returncode}'}")
    return done.stdout
