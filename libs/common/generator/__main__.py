"""`python -m libs.common.generator DIR [--check]`: write the generated files, or say which differ (exit 1)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from libs.common.bus import wire
from libs.common.generator.documents import message_models, render_all
from libs.common.generator.samples import sample
from libs.common.version import VERSION


def golden_files() -> dict[str, bytes]:
    """Path → bytes of this version's examples: `<Message>.msgpack` is what crosses the bus, `.json` what it says."""
    files: dict[str, bytes] = {}
    for model in message_models():
        example = sample(model)
        text = json.dumps(example.model_dump(mode="json", by_alias=True), indent=2, sort_keys=True) + "\n"
        files[f"golden/{VERSION}/{model.__name__}.json"] = text.encode()
        files[f"golden/{VERSION}/{model.__name__}.msgpack"] = wire.pack(example)
    return files


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m libs.common.generator", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not what it should be")
    arguments = parser.parse_args()
    wanted = {path: text.encode() for path, text in render_all().items()} | golden_files()
    differing = [path for path, content in wanted.items() if _read(arguments.directory / path) != content]
    kept = {p.relative_to(arguments.directory).as_posix() for p in (arguments.directory / "schemas").glob("*.json")}
    stale = sorted(kept - wanted.keys())
    if arguments.check:
        for path in [*differing, *stale]:
            sys.stdout.write(f"{arguments.directory / path} is not what the contracts say: run `make generate`\n")
        return 1 if differing or stale else 0
    for path in differing:
        target = arguments.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(wanted[path])
    for path in stale:
        (arguments.directory / path).unlink()
    sys.stdout.write(f"{len(differing)} files written, {len(stale)} removed, {len(wanted)} in all\n")
    return 0


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


if __name__ == "__main__":
    sys.exit(main())
