"""`python -m bench.directories`: sign-ins at large directories: 20,000 people, groups of 10,000, nesting of 10; a real slapd and a real Samba AD.

Each sign-in is the whole of it: search, bind with the person's password, all groups. `cold`: nothing is remembered of groups; `warm`: other people
of the company signed in before.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from integration.identity import samba, slapd
from services.identity.providers.ldap.provider import LdapProvider

PASSWORD = "Passw0rd.Bench"
NESTED = 10
SIGNED_IN = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=20_000, help="entries in each directory")
    parser.add_argument("--members", type=int, default=10_000, help="members of each of the large groups")
    parser.add_argument("--only", choices=["slapd", "samba"], help="one of the two")
    wanted = parser.parse_args()
    sys.stdout.write(f"{'directory':<12}{'what':<26}{'p50 ms':>10}{'p95 ms':>10}{'groups':>8}\n")
    for name, why_not, measure in (
        ("slapd", slapd.why_not(), measure_slapd),
        ("samba", samba.why_not() or why_not_filled(), measure_samba),
    ):
        if wanted.only in (None, name):
            if why_not:
                sys.stdout.write(f"{name:<12}{why_not}\n")
            else:
                asyncio.run(measure(wanted.people, wanted.members))
    return 0


def why_not_filled() -> str:
    return "" if shutil.which("ldbadd") else "ldbadd is missing: apt-get install ldb-tools"


async def measure_slapd(people: int, members: int) -> None:
    entries = [slapd.person(f"u{n}", PASSWORD) for n in range(people)]
    entries += [slapd.group(f"large-{g}", (slapd.user_dn(f"u{n}") for n in range(members))) for g in range(3)]
    entries.append(slapd.group("level-0", (slapd.user_dn(f"u{n}") for n in range(members))))
    entries += [slapd.group(f"level-{n}", [slapd.group_dn(f"level-{n - 1}")]) for n in range(1, NESTED + 1)]
    with (
        tempfile.TemporaryDirectory(prefix="herdsman-bench-") as folder,
        slapd.running(Path(folder) / "slapd", "".join(entries)) as server,
    ):
        await measure("slapd", lambda: LdapProvider("bench", "ldap", server.settings()), members)


async def measure_samba(people: int, members: int) -> None:
    with tempfile.TemporaryDirectory(prefix="herdsman-bench-") as folder:
        async with samba.running(Path(folder)) as controller:
            began = time.monotonic()
            await asyncio.to_thread(fill, controller, people, members)
            sys.stderr.write(f"filled in {time.monotonic() - began:.0f} s\n")
            await controller.start()
            await measure("samba", lambda: LdapProvider("bench", "activeDirectory", controller.settings()), SIGNED_IN)


def fill(controller: samba.Controller, people: int, members: int) -> None:
    """Only those who sign in get a password: making one costs a controller most."""
    database = f"{controller.folder}/dc/private/sam.ldb"

    def run(program: str, ldif: str, *options: str) -> None:
        done = subprocess.run(
            [program, "-H", database, *options], input=ldif.encode(), capture_output=True, timeout=1800, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode()[-1000:])

    dn = "CN=u{},CN=Users," + samba.BASE
    run("ldbadd", "\n".join(
        f"dn: {dn.format(n)}\nobjectClass: user\nsAMAccountName: u{n}\nuserAccountControl: 544\n" for n in range(people)
    ))  # fmt: skip
    for group in (*(f"large-{g}" for g in range(3)), "level-0"):
        controller.tool("group", "add", group)
        lines = "".join(f"member: {dn.format(n)}\n" for n in range(members))
        run("ldbmodify", f"dn: CN={group},CN=Users,{samba.BASE}\nchangetype: modify\nadd: member\n{lines}")
    for n in range(1, NESTED + 1):
        controller.group(f"level-{n}", [f"level-{n - 1}"])
    for n in range(SIGNED_IN):
        controller.tool("user", "setpassword", f"u{n}", f"--newpassword={PASSWORD}")


async def measure(name: str, make: Callable[[], LdapProvider], known: int) -> None:
    provider = make()
    try:
        await provider.test()
        warm = [await timed(lambda n=n: provider.sign_in(f"u{n}", PASSWORD)) for n in range(1, min(known, SIGNED_IN))]
        groups = len((await provider.sign_in("u0", PASSWORD)).groups)
        report(name, "sign-in, warm", warm, groups)
        began = time.monotonic()
        at_once = await asyncio.gather(*(timed(lambda n=n: provider.sign_in(f"u{n}", PASSWORD)) for n in range(50)))
        report(name, "50 at once", list(at_once), groups)
        sys.stderr.write(f"{50 / (time.monotonic() - began):.0f} sign-ins a second\n")
    finally:
        await provider.aclose()
    cold = []
    for n in range(30):
        provider = make()
        try:
            cold.append(await timed(lambda n=n, p=provider: p.sign_in(f"u{n}", PASSWORD)))
        finally:
            await provider.aclose()
    report(name, "sign-in, cold, new TLS", cold, groups)
    provider = make()
    try:
        found = [await timed(lambda n=n: provider.search(f"u{n}", None, 20)) for n in range(100, 130)]
        report(name, "search by a part", found, 20)
    finally:
        await provider.aclose()


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    await work()
    return 1000 * (time.monotonic() - began)


def report(name: str, what: str, times: list[float], groups: int) -> None:
    p95 = statistics.quantiles(times, n=20)[-1]
    sys.stdout.write(f"{name:<12}{what:<26}{statistics.median(times):>10.1f}{p95:>10.1f}{groups:>8}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
