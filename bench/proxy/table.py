"""Rows of the result, for the terminal and for RESULTS.md, and the machine that they were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import ssl
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

Sayer = Callable[[str], None]
OTHERS = "\n# What stored tokens cost\n"
"""Where the results of another bench begin."""


@dataclass(frozen=True)
class Row:
    """`fits` is None where there is no target, or nothing could be measured."""

    what: str
    measured: str
    target: str = ""
    fits: bool | None = None

    @property
    def verdict(self) -> str:
        return {True: "pass", False: "FAIL", None: ""}[self.fits]


@dataclass(frozen=True)
class Table:
    """A section: rows, and what must be said about how they were measured."""

    title: str
    rows: list[Row]
    note: str = ""

    def lines(self) -> list[str]:
        widths = [
            max([len(row.what) for row in self.rows], default=0),
            max([len(row.measured) for row in self.rows], default=0),
        ]
        return [
            self.title,
            *(
                f"  {r.what:<{widths[0]}}  {r.measured:<{widths[1]}}  {r.target:<24} {r.verdict}".rstrip()
                for r in self.rows
            ),
        ]

    def markdown(self) -> str:
        rows = "\n".join(f"| {r.what} | {r.measured} | {r.target} | {r.verdict} |" for r in self.rows)
        note = f"{self.note}\n\n" if self.note else ""
        return f"## {self.title}\n\n{note}| what | measured | target | |\n|---|---|---|---|\n{rows}\n"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, and the least and the most beside it."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"


def quantile(values: Sequence[float], of_hundred: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[of_hundred - 1]


def machine() -> list[tuple[str, str]]:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"model name\s*:\s*(.+)", info)
    return [
        ("CPU", f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0)) or 1} cores"),
        ("kernel", platform.release()),
        ("load average at the start", describe_load()),
        ("Python", f"{sys.version.split()[0]}, {ssl.OPENSSL_VERSION}"),
        ("packages", ", ".join(f"{name} {version(name)}" for name in ("uvloop", "aiohttp", "prometheus-client"))),
        ("Go", said_by("go", "version")),
        ("nginx", said_by("nginx", "-v")),
        ("wrk", said_by("wrk", "--version").partition(" Copyright")[0]),
    ]


def describe_load() -> str:
    """Others' work makes CPU per request dearer (caches), and times meaningless."""
    loads = os.getloadavg()
    busy = loads[0] > 0.5 * len(os.sched_getaffinity(0))
    return " ".join(f"{load:.1f}" for load in loads) + (
        ": the machine was busy with other work, figures of time mean little" if busy else ""
    )


def said_by(*command: str) -> str:
    """The first line that it prints; some print on standard error, wrk with an exit status."""
    if shutil.which(command[0]) is None:
        return "not installed"
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return (run.stdout + run.stderr).strip().splitlines()[0]


def write_results(file: Path, command: str, facts: list[tuple[str, str]], tables: list[Table]) -> None:
    head = "".join(f"- {name}: {value}\n" for name, value in facts)
    intro = (
        "# The front door beside other proxies\n\n"
        f"Written by `{command}`; what is measured and how: `bench/proxy/__init__.py`. The machine is part of the figures, the ratios are\n"
        "what counts. Figures are the median over the rounds, with the least and the most in parentheses.\n\n"
    )
    # Whatever follows under a title of its own is of another bench.
    _, mark, others = (file.read_text(encoding="utf-8") if file.exists() else "").partition(OTHERS)
    text = intro + head + "\n" + "\n".join(table.markdown() for table in tables)
    file.write_text(text.rstrip("\n") + "\n" + mark + others, encoding="utf-8")
