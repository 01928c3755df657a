"""`make fuzz`: fuzzing guided by coverage, as long as you like. `python -m tests.relay.fuzz.deep SECONDS` (needs `atheris`).

libFuzzer keeps every input that reaches new code of the relay; the checks are those of `heads` and `readers`. The inputs that it found
useful stay in `.fuzz`, so that the next run goes on where this one ended. The loops of `run` follow with the same time.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["libs.common.relay", "services.auth_proxy"]):
    from libs.common.relay.head import Block, parse_request
    from tests.relay.fuzz import corpus, heads, readers, run

WORKING = Path(".fuzz")
KINDS = ("request", "smuggling", "response", "chunked")
_last: Block | None = None


def check(data: bytes) -> None:
    """The first byte says which reader gets the rest."""
    global _last
    if not data:
        return
    kind, rest = data[0] % 4, data[1:]
    source = random.Random(len(data))
    if kind == 0:
        head = heads.check_request(heads.cut(rest), _last)
        if head is not None:
            readers.check_notes(head)
            readers.check_guard(head)
            _last = parse_request(heads.cut(rest)).block
    elif kind == 1:
        heads.check_response(heads.cut(rest))
    elif kind == 2:
        readers.check_chunked(rest, source)
    else:
        readers.check_target(bytes(c for c in rest if 0x21 <= c <= 0x7E and c != 0x23))


def _seed_corpus() -> None:
    WORKING.mkdir(exist_ok=True)
    for kind in KINDS:
        first = {"request": b"\0", "smuggling": b"\0", "response": b"\1", "chunked": b"\2"}[kind]
        for number, raw in enumerate(corpus.load(kind)):
            (WORKING / f"{kind}-{number}").write_bytes(first + raw)


def main(limit_s: float) -> None:
    for loop in (run.run_heads, run.run_answers, run.run_readers):
        loop(random.Random(run.seed()), limit_s / 10)
    asyncio.run(run.run_requests(random.Random(run.seed()), limit_s / 10))
    asyncio.run(run.run_replies(random.Random(run.seed()), limit_s / 10))
    _seed_corpus()
    options = [
        f"-max_total_time={int(limit_s / 2)}",
        "-max_len=8192",
        "-timeout=5",
        f"-artifact_prefix={WORKING}/finding-",
    ]
    atheris.Setup([sys.argv[0], *options, str(WORKING)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(float(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("FUZZ_SECONDS", "600")))
