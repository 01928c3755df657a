"""Who takes part: each is an address, the headers that its clients send, and the processes whose CPU counts."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import shutil
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import free_port
from bench.proxy import nginx, scene
from bench.proxy.stage import LOAD_CORES, PROXY_CORE, Part, Stage, StageError
from tests.auth_proxy.door import make_pki

DOOR, TUNNEL, GO, AIOHTTP = "front door", "front door + agent", "Go ReverseProxy", "aiohttp"
NGINX, PIPE, BACKEND = "nginx", "bytes through uvloop", "no proxy"
PEOPLE = ("ada", "eve")
_GO_FOLDER = Path(__file__).parent / "go"


@dataclass
class Contestant:
    """`parts` are its processes, none for the API server itself. `missing`: what to install for it to take part."""

    name: str
    port: int = 0
    prefix: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    missing: str = ""
    is_floor: bool = False
    """No proxy, but what one in Python is built on: it takes part in `speed` only."""

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{self.prefix}{path}"

    def request(self, path: str) -> bytes:
        return scene.render_request(self.prefix + path, self.headers)

    @property
    def cpu_s(self) -> float:
        return sum(part.cpu_s for part in self.parts)


@dataclass
class Cast:
    """Everybody, with the parts that stand behind them. `tokens` by person; ada makes the load, others may be disabled."""

    folder: Path
    backend: Part
    door: Part
    contestants: dict[str, Contestant] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def taking_part(self) -> list[Contestant]:
        return [c for c in self.contestants.values() if not c.missing]

    @property
    def not_floors(self) -> list[Contestant]:
        return [c for c in self.taking_part if not c.is_floor]

    @property
    def proxies(self) -> list[Contestant]:
        return [c for c in self.not_floors if c.parts]

    def door_for(self, person: str, cluster: str = "direct0") -> Contestant:
        """The front door, called by somebody else or for another cluster."""
        return Contestant(
            DOOR, self.door.facts["port"], f"/k8s/clusters/{cluster}", bearer(self.tokens[person]), [self.door]
        )


def bearer(token: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}")]


def assemble(stage: Stage, only: frozenset[str] | None = None) -> Cast:
    """Start them all, and see that each really sends what it must. `only`: names of those that are wanted."""
    own, other = stage.folder / "door", stage.folder / "api"
    for folder in (own, other):
        folder.mkdir()
    make_pki(other)
    backend = stage.role("backend", LOAD_CORES, folder=str(other))
    at = {"backend": backend.facts["port"], "backend_folder": str(other)}
    tokens = {person: f"hm_{person}bench_{secrets.token_urlsafe(32)}" for person in PEOPLE}
    door = stage.role("door", PROXY_CORE, folder=str(own), people=tokens, **at)
    cast = Cast(stage.folder, backend, door, tokens=tokens)
    direct = cast.door_for("ada")
    identity = read_identity(direct)
    flat = [(name, value) for name, *values in identity for value in values]
    straight = Contestant(BACKEND, backend.facts["port"], "", [("Authorization", scene.API_CREDENTIAL), *flat])

    def wanted(name: str) -> bool:
        return only is None or name in only

    everybody = [straight, direct]
    if wanted(TUNNEL):
        facts = {"seed": door.facts["seed"], "cluster": door.facts["cluster"], "hub": door.facts["port"]}
        agent = stage.role("agent", LOAD_CORES, folder=str(own), **facts, **at)
        through = cast.door_for("ada", "reverse")
        everybody.append(Contestant(TUNNEL, through.port, through.prefix, through.headers, [door, agent]))
    if wanted(GO):
        everybody.append(start_go(stage, cast, identity))
    if wanted(AIOHTTP):
        part = stage.role("aiohttp_door", PROXY_CORE, **describe(cast, identity, "aiohttp"))
        everybody.append(Contestant(AIOHTTP, part.facts["port"], direct.prefix, direct.headers, [part]))
    if wanted(NGINX):
        everybody.append(start_nginx(stage, cast, identity))
    if wanted(PIPE):
        part = stage.role("pipe", PROXY_CORE, **describe(cast, identity, "pipe"), identity=identity)
        everybody.append(Contestant(PIPE, part.facts["port"], "", direct.headers, [part], is_floor=True))
    for contestant in everybody:
        cast.contestants[contestant.name] = contestant
        if not contestant.missing:
            check_identity(contestant, identity)
    return cast


def describe(cast: Cast, identity: list[list[str]], name: str) -> dict[str, object]:
    """The settings of the proxies that are not ours."""
    _, key, secret = cast.tokens["ada"].split("_", 2)
    values = {line[0]: line[1] for line in identity}
    owner = {
        "hash": hashlib.sha256(secret.encode()).hexdigest(), "identity": identity,
        "user": values["Impersonate-User"], "uid": values["Impersonate-Uid"],
    }  # fmt: skip
    return {
        "backend": cast.backend.facts["port"], "backend_ca": str(cast.folder / "api/tls.crt"),
        "certificate": str(cast.folder / "door/tls.crt"), "key": str(cast.folder / "door/tls.key"),
        "credential": scene.API_CREDENTIAL, "audit_file": str(cast.folder / f"{name}.log"), "tokens": {key: owner},
    }  # fmt: skip


def start_go(stage: Stage, cast: Cast, identity: list[list[str]]) -> Contestant:
    """Build it (Go keeps what it built) and start it on one processor."""
    if shutil.which("go") is None:
        return Contestant(GO, missing="install Go 1.24 or newer")
    binary = stage.folder / "go-door"
    try:
        subprocess.run(
            ["go", "build", "-o", str(binary), "."], cwd=_GO_FOLDER, check=True, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as exc:
        return Contestant(GO, missing=f"go build failed: {exc.stderr.strip().splitlines()[-1]}")
    file = stage.folder / "go.json"
    file.write_text(json.dumps(describe(cast, identity, "go")), encoding="ascii")
    part = stage.program(GO, [str(binary), str(file)], PROXY_CORE, GOMAXPROCS="1")
    part.facts = part.hear()
    return Contestant(GO, part.facts["port"], "/k8s/clusters/direct0", bearer(cast.tokens["ada"]), [part])


def start_nginx(stage: Stage, cast: Cast, identity: list[list[str]]) -> Contestant:
    if shutil.which("nginx") is None:
        return Contestant(NGINX, missing="apt-get install nginx-light")
    port = free_port()
    file = nginx.write_config(
        stage.folder / "nginx", port=port, backend=cast.backend.facts["port"], pki=stage.folder / "door",
        backend_ca=stage.folder / "api/tls.crt", identity=identity,
    )  # fmt: skip
    part = stage.program(
        NGINX, ["nginx", "-p", str(file.parent), "-e", str(file.parent / "nginx.log"), "-c", str(file)], PROXY_CORE
    )
    contestant = Contestant(NGINX, port, "/k8s/clusters/direct0", bearer(cast.tokens["ada"]), [part])
    deadline = time.monotonic() + 10
    while True:
        try:
            read_identity(contestant)
        except OSError as exc:
            if time.monotonic() > deadline or part.process.poll() is not None:
                raise StageError("nginx did not start; what it said is above") from exc
            time.sleep(0.05)
        else:
            return contestant


def read_identity(contestant: Contestant) -> list[list[str]]:
    """The Impersonate-* headers that reach the API server through this proxy: lists of name and values, the user first."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", contestant.port, context=ssl._create_unverified_context(), timeout=10
    )
    connection.request("GET", contestant.prefix + scene.ECHO_PATH, headers=dict((*scene.KUBECTL, *contestant.headers)))
    answer = connection.getresponse()
    text = answer.read().decode("latin-1")
    connection.close()
    if answer.status != 200:
        raise StageError(f"{contestant.name} answers {answer.status}: {text[:200]}")
    found: dict[str, list[str]] = {}
    for line in text.split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower().startswith("impersonate-"):
            found.setdefault(name.title(), []).append(value)
    return [[name, *values] for name, values in found.items()]


def check_identity(contestant: Contestant, expected: list[list[str]]) -> None:
    """Every proxy must say the same of the caller; groups hold the cluster's name."""
    cluster = contestant.prefix.rpartition("/")[2]
    said = [[value.replace(f":{cluster}:", ":direct0:") for value in line] for line in read_identity(contestant)]
    if contestant.parts and sorted(said) != sorted(expected):
        raise StageError(f"{contestant.name} says something else of the caller: {said} instead of {expected}")
