"""CPU per proxied request: the relay engine alone, and the whole front door with an agent behind it. `python -m bench.proxy_cpu`.

Each part is a process of its own: wrk (load), the proxy, the agent, an API server that answers 1 KiB. CPU is utime + stime of the
proxy's process, which other load on the machine disturbs less than requests a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from libs.common.relay import rebuild
from libs.common.relay.decision import Relay
from libs.common.relay.names import KUBERNETES_REQUEST
from libs.common.relay.pool import Address, Pool
from libs.common.relay.server import Engine, listen
from libs.common.relay.sweeper import Sweeper
from tests.auth_proxy.door import AgentKey, make_pki, open_door

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
CONNECTIONS = 32
BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nAudit-Id: 1\r\nContent-Length: 1024\r\n\r\n" + BODY
BULK = b"HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n" + b"y" * 16777216
HEADERS = [
    "Accept: application/json",
    "Accept-Encoding: gzip",
    "User-Agent: kubectl/v1.36.3 (linux/amd64) kubernetes/0000000",
]
REFERENCE = {
    "engine, plain": "nginx 37-48, Go 148-199, aiohttp 318-456",
    "engine, TLS both sides": "nginx 50-68, Go 178-207, aiohttp 468-483",
}


class ApiServer(asyncio.Protocol):
    """Answers each head; nothing here has a body."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data.endswith(b"\r\n\r\n"):
            if b"/watch" in data:
                self.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            else:
                self.transport.write(BULK if b"/bulk" in data else ANSWER)


async def role_server(config):
    tls = server_tls(Path(config["folder"])) if config["tls"] else None
    server = await asyncio.get_running_loop().create_server(ApiServer, "127.0.0.1", 0, ssl=tls)
    say({"port": server.sockets[0].getsockname()[1]})
    await asyncio.Event().wait()


async def role_engine(config):
    """The engine with a route that rebuilds the head and appends an identity, as the front door does, without deciding."""
    sweeper = Sweeper()
    folder = Path(config["folder"])
    client = ssl.create_default_context(cafile=str(folder / "tls.crt")) if config["tls"] else None
    address = Address("the API server", "127.0.0.1", config["upstream"], tls=client, server_hostname="localhost")
    pool = Pool(lambda: address, sweeper=sweeper)
    identity = b"Impersonate-User: herdsman:ada\r\nImpersonate-Group: herdsman:a\r\nImpersonate-Group: herdsman:b\r\n"

    def route(head, _session):
        built = rebuild.request_head(head, head.target, allowed=KUBERNETES_REQUEST, host=b"k", identity=identity)
        rebuild.check_identity(built, identity)
        return Relay(pool, built, lambda answer, close: rebuild.response_head(answer, close=close), first_byte_s=60.0)

    engine = Engine(route, sweeper=sweeper)
    server = await listen(engine, "127.0.0.1", 0, server_tls(folder) if config["tls"] else None)
    say({"port": server.sockets[0].getsockname()[1]})
    await asyncio.Event().wait()


async def role_door(config):
    folder = Path(config["folder"])
    async with open_door(folder) as door:
        token = await door.member()
        say({
            "port": door.port, "token": token, "uid": door.uids["cluster/prod"], "seed": door.keys["prod"].seed.decode(),
        })  # fmt: skip
        await asyncio.Event().wait()


async def role_agent(config):
    from libs.common.relay.dial import ReverseDialer, new_instance
    from libs.common.relay.handshake import TunnelIdentity
    from libs.common.relay.outbound import Hub

    key = AgentKey(config["seed"].encode())
    tls = ssl.create_default_context(cafile=str(Path(config["folder"]) / "tls.crt"))
    api_tls = ssl.create_default_context(cafile=str(Path(config["server_folder"]) / "tls.crt"))
    address = Address("the API server", "127.0.0.1", config["upstream"], tls=api_tls, server_hostname="localhost")
    dialer = ReverseDialer(
        Hub(f"https://localhost:{config['hub']}", tls, {}), TunnelIdentity(config["uid"], key.public, key.sign, new_instance()),
        lambda: address, lambda: b"Bearer x",
    )  # fmt: skip
    task = asyncio.create_task(dialer.run(), name="dialer")
    for _ in range(1000):
        if dialer.connected == 4:
            break
        await asyncio.sleep(0.01)
    say({"ready": True})
    await task


def server_tls(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def say(facts):
    print(json.dumps(facts), flush=True)


def start(role, core, **config):
    process = subprocess.Popen(
        ["taskset", "-c", str(core), sys.executable, "-m", "bench.proxy_cpu", role, json.dumps(config)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return process, json.loads(line)
    raise SystemExit(f"{role} did not start")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def load(url, headers, seconds, connections):
    arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", url]
    for header in headers:
        arguments += ["-H", header]
    out = subprocess.run(["taskset", "-c", "1", *arguments], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        print(out)
    return int(re.search(r"(\d+) requests in", out)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])


def measure(name, url, headers, pids, *, bulk=False):
    connections = 4 if bulk else CONNECTIONS
    load(url, headers, 1.0, connections)
    before = {k: cpu_seconds(p) for k, p in pids.items()}
    requests, rate = load(url, headers, SECONDS, connections)
    used = {k: cpu_seconds(p) - before[k] for k, p in pids.items()}
    unit, scale = ("ms", 1e3) if bulk else ("us", 1e6)
    parts = ", ".join(
        f"{k} {v * scale / requests:.1f} {unit} ({resident_mib(pids[k]):.0f} MiB)" for k, v in used.items()
    )
    print(f"{name:34} {parts}; {rate:.0f} req/s   [{REFERENCE.get(name, '')}]", flush=True)


async def open_watches(port, folder, count):
    """Watches that stay silent, held open for a moment; returns what the proxy's memory grew by for each."""
    tls = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    writers = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("localhost", port, ssl=tls)
        writer.write(b"GET /watch?watch=true HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writers.append(writer)
    return writers


def measure_watches(pid, port, folder, count=1000):
    before = resident_mib(pid)

    async def run():
        writers = await open_watches(port, folder, count)
        grown = resident_mib(pid) - before
        for writer in writers:
            writer.transport.abort()
        return grown

    grown = uvloop.run(run())
    print(
        f"{'idle watches, TLS both sides':34} {grown * 1024 / count:.1f} KiB each, both connections (of {count})",
        flush=True,
    )


def main():
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    running = []

    def begin(*arguments, **config):
        process, facts = start(*arguments, **config)
        running.append(process)
        return process.pid, facts

    with tempfile.TemporaryDirectory() as text:
        folder, other = Path(text) / "a", Path(text) / "b"
        for made in (folder, other):
            made.mkdir()
            make_pki(made)
        try:
            for tls, name in ((False, "plain"), (True, "TLS both sides")):
                _, server = begin("server", 1, folder=str(folder), tls=tls)
                pid, engine = begin("engine", 0, folder=str(folder), tls=tls, upstream=server["port"])
                base = f"{'https' if tls else 'http'}://127.0.0.1:{engine['port']}"
                measure(f"engine, {name}", f"{base}/api", HEADERS, {"proxy": pid})
                if tls:
                    measure_watches(pid, engine["port"], folder)
                measure(f"engine, {name}, 16 MiB", f"{base}/bulk", HEADERS, {"proxy": pid}, bulk=True)
            _, server = begin("server", 1, folder=str(other), tls=True)
            pid, door = begin("door", 0, folder=str(folder))
            agent, _ = begin(
                "agent", 1, folder=str(folder), server_folder=str(other), upstream=server["port"], hub=door["port"],
                uid=door["uid"], seed=door["seed"],
            )  # fmt: skip
            headers = [*HEADERS, f"Authorization: Bearer {door['token']}"]
            url = f"https://127.0.0.1:{door['port']}/k8s/clusters/prod/api/v1/pods"
            time.sleep(1)
            measure("door + agent, all TLS", url, headers, {"door": pid, "agent": agent})
            measure("door + agent, all TLS, 16 MiB", f"{url}/bulk", headers, {"door": pid, "agent": agent}, bulk=True)
        finally:
            for process in running:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        role = {"server": role_server, "engine": role_engine, "door": role_door, "agent": role_agent}[sys.argv[1]]
        uvloop.run(role(json.loads(sys.argv[2])))
    else:
        main()
