"""The cluster that comes with `herdsman up`: a Kubelab cluster on this machine, imported as any other cluster is.

Runs beside the hub, which is ready already: whatever fails here is told in a sentence and leaves the hub alone. What became
of the cluster is remembered (`local-cluster.json`): one that was deleted from the hub is not brought back by a restart.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from libs.common import errors
from services.cli.durations import format_elapsed
from services.cli.files import read_json, write_private
from services.cli.up.layout import Layout
from services.cli.up.local_import import Importer
from services.cli.up.processes import spawn
from services.cli.up.programs import Program, json_line, read_json_line
from services.cli.up.progress import Progress
from services.cli.up.supervisor import Supervisor

KUBELAB_STAGE, AGENT_STAGE = 10, 11
KUBELAB = (sys.executable, "-m", "integration.kubelab")
AGENT = (sys.executable, "-m", "services.agent")
_PROGRAMS = ("kubelab", "agent")
_PRESENT = 0
_HOW_TO_IMPORT = "herdsman cluster import NAME --kubeconfig FILE"
_DELETED, _IMPORTED = "deleted", "imported"


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """`insist`: the name was given on the command line, so a deleted cluster is wanted again."""

    name: str
    insist: bool
    hub_url: str
    log_level: str
    environment: Mapping[str, str]
    kubelab: tuple[str, ...] = KUBELAB
    agent: tuple[str, ...] = AGENT


class LocalCluster:
    """Brings one up, imports it, and notices when the hub lets it go."""

    def __init__(
        self, layout: Layout, options: LocalOptions, supervisor: Supervisor, importer: Importer, progress: Progress
    ) -> None:
        self._layout = layout
        self._options = options
        self._supervisor = supervisor
        self._importer = importer
        self._progress = progress

    async def run(self) -> None:
        """For a task of its own; ends when there is nothing more to look after."""
        name = self._options.name
        try:
            await self._run()
        except (errors.HerdsmanError, OSError) as error:
            await self._supervisor.stop(_PROGRAMS)
            self._progress.say(f'cluster "{name}" is not there: {error}')
            self._progress.say(f"the hub runs without it; to import one of your own: {_HOW_TO_IMPORT}")

    async def _run(self) -> None:
        name = self._options.name
        began = time.monotonic()
        if self._memory(name) == _DELETED and not self._options.insist:
            self._progress.say(
                f'cluster "{name}" was deleted from the hub and stays away; to have it again: herdsman up --local-cluster {name}'
            )
            return
        if not await self._have_programs():
            return
        kubeconfig = await self._start_kubernetes()
        await self._start_agent(kubeconfig)
        state = await self._importer.wait_active(name, self._progress)
        self._progress.say(f'cluster "{name}" {state} ({format_elapsed(time.monotonic() - began)})')
        await self._supervisor.wait_over("agent")
        if self._has_identity():
            return  # stopped together with everything else
        # Detached: the agent removed what it owned, said so, and forgot who it was.
        self._remember(name, _DELETED)
        self._progress.say(
            f'cluster "{name}" was deleted from the hub; its Kubernetes is stopped, its data stays in {self._layout.kubelab}'
        )
        await self._supervisor.stop(_PROGRAMS)

    async def _have_programs(self) -> bool:
        """Whether Kubernetes can be started; builds it first where that is possible."""
        if importlib.util.find_spec("integration") is None:
            self._progress.say(
                f"no local cluster: this installation has no Kubelab; to import one of your own: {_HOW_TO_IMPORT}"
            )
            return False
        code, words = await self._ask("build", "--check")
        if code == _PRESENT:
            return True
        self._progress.say(f"no local cluster yet: {words}; meanwhile one of your own: {_HOW_TO_IMPORT}")
        self._progress.say(
            "building Kubernetes for the local cluster in the background (5 to 15 minutes, once); the hub can be used meanwhile"
        )
        await self._build()
        return True

    async def _build(self) -> None:
        log = self._layout.logs / "kubelab-build.log"
        output = await asyncio.to_thread(log.open, "wb")
        with output:
            process = await spawn(
                (*self._options.kubelab, "build"), environment=self._options.environment, folder=self._layout.root,
                stdout=output.fileno(), stderr=output.fileno(), death_signal=signal.SIGTERM,
            )  # fmt: skip
        ending = asyncio.create_task(process.wait(), name="kubelab-build")
        try:
            while not ending.done():
                self._progress.busy("kubelab-build", f"building Kubernetes: {await asyncio.to_thread(_last_line, log)}")
                await asyncio.wait([ending], timeout=1.0)
        finally:
            self._progress.done("kubelab-build")
            if not ending.done():
                process.terminate()
                await ending
        if process.returncode != 0:
            raise errors.Unavailable(
                f"Kubernetes could not be built: {await asyncio.to_thread(_last_line, log)}; see {log}"
            )
        self._progress.say("Kubernetes is built")

    async def _start_kubernetes(self) -> Path:
        """Starts the supervised cluster; returns its administrator's kubeconfig."""
        code, words = await self._ask("doctor")
        full = code == _PRESENT
        if not full:
            self._progress.say(f"the local cluster runs no pods here; {words}")
        stdout = self._layout.root / "kubelab.json"
        await asyncio.to_thread(stdout.unlink, missing_ok=True)
        await self._supervisor.start([Program(
            name="kubelab",
            argv=(*self._options.kubelab, "run", self._options.name, "--dir", str(self._layout.kubelab), *(["--full"] if full else [])),
            stage=KUBELAB_STAGE,
            ready=json_line(stdout),
            environment=self._options.environment,
            ready_timeout_s=180.0,
            stop_timeout_s=30.0,
            death_signal=signal.SIGTERM,
            stdout_file=stdout,
        )])  # fmt: skip
        answer = await asyncio.to_thread(read_json_line, stdout)
        assert answer is not None, "it was ready"
        return Path(str(answer["kubeconfig"]))

    async def _start_agent(self, kubeconfig: Path) -> None:
        name = self._options.name
        token_file = self._layout.agent / f"{name}.token"
        arguments = [
            "run", "--hub", self._options.hub_url, "--ca-file", str(self._layout.ca_file), "--state-dir", str(self._agent_state),
            "--kubeconfig", str(kubeconfig), "--cluster-name", name, "--log-level", self._options.log_level, "--log-format", "console",
        ]  # fmt: skip
        if self._memory(name) != _IMPORTED or not self._has_identity():
            token = await self._importer.register(name)
            await asyncio.to_thread(write_private, token_file, token)
            self._remember(name, _IMPORTED)
        if await asyncio.to_thread(token_file.exists):
            arguments += ["--registration-token-file", str(token_file)]
        await self._supervisor.start([Program(
            name="agent",
            argv=(*self._options.agent, *arguments),
            stage=AGENT_STAGE,
            environment=self._options.environment,
            # It ends by itself only after it detached; stopped by anybody else, it is wanted again.
            is_final=lambda code: code == 0 and not self._has_identity(),
        )])  # fmt: skip

    @property
    def _agent_state(self) -> Path:
        return self._layout.agent / self._options.name

    def _has_identity(self) -> bool:
        """Whether the agent is registered: a file of its state folder, which it removes when it has detached."""
        return self._agent_state.joinpath("identity").exists()

    async def _ask(self, *arguments: str) -> tuple[int, str]:
        """Runs a short Kubelab command; its exit code and last words."""
        process = await asyncio.create_subprocess_exec(
            *self._options.kubelab, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=dict(self._options.environment), cwd=self._layout.root, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(30):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise errors.Timeout(f'"herdsman-kubelab {" ".join(arguments)}" did not end within 30 s') from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        lines = output.decode(errors="replace").strip().splitlines()
        assert process.returncode is not None
        return process.returncode, lines[-1] if lines else "it says nothing"

    def _memory(self, name: str) -> str:
        return str(read_json(self._layout.local_record).get(name, ""))

    def _remember(self, name: str, state: str) -> None:
        document = read_json(self._layout.local_record)
        document[name] = state
        write_private(self._layout.local_record, json.dumps(document, indent=2) + "\n")


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "starting"
