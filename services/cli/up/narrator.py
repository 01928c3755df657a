"""What the supervisor does, told to a person and kept in herdsman.json. The supervisor's `Watcher` in `herdsman up`."""

from __future__ import annotations

from libs.common import errors
from libs.common.processes import ProcessId
from services.cli.up.programs import Program
from services.cli.up.progress import Progress
from services.cli.up.record import Record


class Narrator:
    """Says what a person should know: what takes long, what died. Restarts in a row are told once, then counted."""

    def __init__(self, progress: Progress, record: Record) -> None:
        self._progress = progress
        self._record = record
        self._deaths: dict[str, int] = {}

    def started(self, program: Program, process: ProcessId) -> None:
        self._record.processes[program.name] = process
        self._write()

    def waiting(self, program: Program, seconds: float, reason: str) -> None:
        self._progress.busy(program.name, f"{program.name}: {reason}")

    def ready(self, program: Program, seconds: float) -> None:
        self._progress.done(program.name)

    def died(self, program: Program, code: int, words: str, pause_s: float) -> None:
        self._record.processes.pop(program.name, None)
        self._write()
        deaths = self._deaths[program.name] = self._deaths.get(program.name, 0) + 1
        if deaths <= 3 or deaths % 20 == 0:
            how = f"signal {-code}" if code < 0 else f"code {code}"
            again = "at once" if pause_s < 0.1 else f"in {pause_s:g} s"
            self._progress.say(
                f"{program.name} ended with {how}, is started again {again}: {words or 'it wrote nothing'}"
            )

    def finished(self, program: Program, code: int) -> None:
        self._record.processes.pop(program.name, None)
        self._write()

    def stopping(self, program: Program) -> None:
        self._progress.busy("stopping", f"stopping {program.name}")

    def _write(self) -> None:
        try:
            self._record.write()
        except errors.Unavailable as error:
            # A full disk must not end a hub that runs; the file is only a description of it.
            self._progress.say(f"warning: {error.message}")
