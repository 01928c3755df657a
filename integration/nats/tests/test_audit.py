"""The audit log on a real server: nothing is lost while it is killed, nobody takes anything back, and a full stream is survived."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from integration.harness.nats import NatsServer
from libs.common import errors
from libs.common.audit.chain import read_batch
from libs.common.audit.event import RawEvent
from libs.common.audit.policy import Decision
from libs.common.audit.request import RequestInfo
from libs.common.audit.stream import audit_stream
from libs.common.audit.verify import LogVerifier
from libs.common.bus.jetstream_api import JetStreamApi
from libs.common.bus.journal import Journal, NatsJournal
from libs.common.bus.nats import NatsBus, connect
from libs.common.bus.streams import StreamSpec, ensure_stream
from libs.common.contracts import subjects
from services.auth_proxy.audit import AuditLog, AuditSettings
from services.auth_proxy.audit_figures import AuditFigures
from tests.bus.journal_conformance import JournalConformance
from tests.store.watching import eventually

KEY = Ed25519PrivateKey.generate()
MB = 1024 * 1024


class TestJetStream(JournalConformance):
    @pytest.fixture
    async def stream(self, admin: NatsBus) -> AsyncGenerator[str, None]:
        name = f"J{secrets.token_hex(4)}"
        yield name
        await JetStreamApi(admin.connection).call(f"STREAM.DELETE.{name}")

    @pytest.fixture
    def journal(self, admin: NatsBus, stream: str) -> Journal:
        return NatsJournal(JetStreamApi(admin.connection), StreamSpec(stream, (f"{stream}.>",), MB, 3600))

    @pytest.fixture
    def subject(self, stream: str) -> Callable[[str], str]:
        return lambda word: f"{stream}.{word}"


def event(number: int, pad: str = "") -> RawEvent:
    moment = time.time()
    return RawEvent(
        "ResponseComplete", number, moment, moment, RequestInfo("get", f"/n/{number}"), b"/n/%d" % number, "1.2.3.4",
        pad.encode(), None, frozenset(), "", "", Decision("Metadata"), 200,
    )  # fmt: skip


class Running:
    """An audit log as the front door's, on a connection with its credential."""

    def __init__(self, log: AuditLog) -> None:
        self.log = log
        self.tasks = [asyncio.create_task(log.run(), name="run"), asyncio.create_task(log.publish(), name="publish")]

    async def stop(self) -> None:
        await self.log.close(10)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.log.release()


async def start(bus: NatsBus, folder: Path, spec: StreamSpec | None = None, **settings: object) -> Running:
    journal = NatsJournal(JetStreamApi(bus.connection), spec or audit_stream(64 * MB))
    log = AuditLog(AuditSettings(folder, **settings), KEY, journal, AuditFigures())  # type: ignore[arg-type]
    await log.start()
    return Running(log)


async def read_all(bus: NatsBus, *, partial: bool = False) -> tuple[list[int], LogVerifier]:
    """The events in the stream, and the verified log; read with the gateway's credential."""
    journal = NatsJournal(JetStreamApi(bus.connection), audit_stream())
    verifier, numbers, sequence = LogVerifier(KEY.public_key(), partial=partial), [], 1
    while (entry := await journal.next(sequence)) is not None:
        seal, lines = read_batch(entry.data)
        verifier.feed(seal, lines, f"#{entry.sequence}")
        numbers += [int(line.split(b'"/n/')[1].split(b'"')[0]) for line in lines if line.startswith(b'{"kind":"Event"')]
        sequence = entry.sequence + 1
    verifier.finish()
    return numbers, verifier


async def test_a_server_that_is_killed_while_events_flow_costs_nothing(own_server: NatsServer, tmp_path: Path) -> None:
    async with connect(own_server.connect_as("auth_proxy")) as bus, connect(own_server.connect_as("gateway")) as reader:
        running = await start(bus, tmp_path / "audit")
        written = 0
        for _ in range(3):
            for _ in range(200):
                running.log.write(event(written))
                written += 1
                await asyncio.sleep(0.002)
            own_server.kill()
            for _ in range(100):
                running.log.write(event(written))
                written += 1
                await asyncio.sleep(0.002)
            await asyncio.to_thread(own_server.start)
            await bus.connection.up.wait()
        await running.stop()
        await reader.connection.up.wait()
        numbers, verifier = await read_all(reader)
    assert numbers == list(range(written))
    assert verifier.findings == []


async def test_no_service_takes_anything_back_or_writes_in_anothers_name(
    own_server: NatsServer, tmp_path: Path
) -> None:
    async with connect(own_server.connect_as("auth_proxy")) as bus:
        running = await start(bus, tmp_path / "audit")
        running.log.write(event(1))
        await running.stop()
    stream = subjects.AUDIT_STREAM
    for service in ("auth_proxy", "gateway", "authz", "cluster_controller"):
        async with connect(own_server.connect_as(service)) as bus:
            api = JetStreamApi(bus.connection)
            for operation, request in (
                (f"STREAM.DELETE.{stream}", None),
                (f"STREAM.PURGE.{stream}", None),
                (f"STREAM.MSG.DELETE.{stream}", {"seq": 1}),
                (f"STREAM.UPDATE.{stream}", {**audit_stream().to_config(1), "max_age": 1_000_000_000}),
            ):
                with pytest.raises(errors.HerdsmanError):
                    await api.call(operation, request, 0.5)
            if service != "auth_proxy":
                with pytest.raises(errors.HerdsmanError):
                    await api.publish(subjects.audit("forged"), b"x", timeout_s=0.5)
    # Not even an administrator takes single messages out.
    async with connect(own_server.connect_as("administration")) as bus:
        api = JetStreamApi(bus.connection)
        with pytest.raises(errors.HerdsmanError):
            await api.call(f"STREAM.MSG.DELETE.{stream}", {"seq": 1})
        with pytest.raises(errors.HerdsmanError):
            await api.call(f"STREAM.PURGE.{stream}")
        numbers, verifier = await read_all(bus)
    assert numbers == [1]
    assert verifier.findings == []


async def test_a_full_stream_lets_the_oldest_go_and_never_the_newest(own_server: NatsServer, tmp_path: Path) -> None:
    async with connect(own_server.connect_as("auth_proxy")) as bus, connect(own_server.connect_as("gateway")) as reader:
        running = await start(bus, tmp_path / "audit", audit_stream(100_000))
        for number in range(600):
            running.log.write(event(number, secrets.token_hex(120)))
            await asyncio.sleep(0.001)
        await running.stop()
        numbers, verifier = await read_all(reader, partial=True)
    assert numbers[-1] == 599
    assert numbers == list(range(numbers[0], 600))
    assert numbers[0] > 0
    assert verifier.worst == "note"


async def test_a_stream_that_takes_no_more_stops_new_calls_and_is_caught_up_with(
    own_server: NatsServer, tmp_path: Path
) -> None:
    spec = StreamSpec(
        subjects.AUDIT_STREAM, (subjects.audit("*"),), max_bytes=60_000, max_age_s=3600, when_full="refuse", append_only=True
    )  # fmt: skip
    async with (
        connect(own_server.connect_as("auth_proxy")) as bus,
        connect(own_server.connect_as("administration")) as admin,
    ):
        running = await start(bus, tmp_path / "audit", spec, spool_bytes=60_000)
        written = 0
        async with asyncio.timeout(60):
            while not running.log.full:
                running.log.write(event(written, secrets.token_hex(120)))
                written += 1
                await asyncio.sleep(0.001)
        with pytest.raises(errors.Unavailable, match="takes no more"):
            running.log.check_room()
        larger = StreamSpec(
            spec.name, spec.subjects, max_bytes=10 * MB, max_age_s=3600, when_full="refuse", append_only=True
        )
        await ensure_stream(JetStreamApi(admin.connection), larger)
        await eventually(lambda: not running.log.full, 20)
        running.log.check_room()
        await running.stop()
        numbers, verifier = await read_all(admin)
    assert numbers == list(range(written))
    assert [f.severity for f in verifier.findings] == ["gap"]


async def test_the_rate_that_is_promised_is_kept_up_with(own_server: NatsServer, tmp_path: Path) -> None:
    """Twenty thousand events are taken, written and published; nothing is refused. How fast is what `bench.audit_cost` tells."""
    async with connect(own_server.connect_as("auth_proxy")) as bus, connect(own_server.connect_as("gateway")) as reader:
        running = await start(bus, tmp_path / "audit")
        for number in range(20_000):
            running.log.write(event(number))
            if number % 100 == 99:
                await asyncio.sleep(0.02)
            running.log.check_room()
        await running.stop()
        numbers, verifier = await read_all(reader)
    assert numbers == list(range(20_000))
    assert verifier.findings == []
