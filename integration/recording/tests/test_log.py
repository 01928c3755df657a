"""The stream of recordings on a real nats-server: who may do what with it, and what it does when it is full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from integration.harness.nats import NatsServer
from libs.common import errors
from libs.common.bus.jetstream_api import JetStreamApi, Refused
from libs.common.bus.nats import NatsBus, connect
from libs.common.contracts.subjects import RECORDINGS_STREAM, recording
from libs.common.recording.chain import Message, Sealer
from libs.common.recording.events import STDOUT, Event
from libs.common.recording.log import JetStreamLog, new_id
from tests.recording.made import NOW, SIGNER, facts, outcome

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def door(server: NatsServer) -> AsyncIterator[NatsBus]:
    async with connect(server.connect_as("auth_proxy")) as bus:
        yield bus


@pytest.fixture
async def gateway(server: NatsServer) -> AsyncIterator[NatsBus]:
    async with connect(server.connect_as("gateway")) as bus:
        yield bus


async def store(bus: NatsBus, now=NOW, *, parts: int = 1) -> str:
    log, sealer, id_ = JetStreamLog(bus), Sealer(SIGNER), new_id(now)
    await log.ensure()
    await log.append(id_, sealer.head(facts(id=id_)))
    for number in range(parts):
        await log.append(id_, sealer.part([Event(number, STDOUT, b"%d" % number)]))
    await log.append(id_, sealer.end(outcome()))
    return id_


async def test_nothing_is_there_before_the_first_recording(gateway):
    log = JetStreamLog(gateway)
    assert [part async for part in log.read_ends(None)] == []
    assert [part async for part in log.read(new_id(NOW))] == []


async def test_each_recording_is_read_by_itself_and_in_order(door, gateway):
    ids = [await store(door, NOW + timedelta(seconds=n), parts=200) for n in range(3)]
    log = JetStreamLog(gateway)
    read = [part async for part in log.read(ids[1])]
    assert [part.kind for part in read] == ["head", *["part"] * 200, "end"]
    assert {part.id for part in read} == {ids[1]}
    assert [(part.id, part.kind) async for part in log.read_ends(None)] == [
        (i, k) for i in ids for k in ("head", "end")
    ]


async def test_the_same_message_is_stored_once_however_often_it_is_sent(door, gateway):
    id_ = await store(door)
    message = Sealer(SIGNER).head(facts(id=id_))
    for _ in range(3):
        await JetStreamLog(door).append(id_, message)
    assert len([part async for part in JetStreamLog(gateway).read(id_)]) == 3


async def test_the_gateway_can_not_write_and_the_front_door_can_not_read(door, gateway):
    id_ = await store(door)
    with pytest.raises(errors.Denied):
        await JetStreamLog(gateway).append(id_, Message("part", 1, b"x"))
    with pytest.raises(errors.Denied):
        [part async for part in JetStreamLog(door).read(id_)]
    with pytest.raises(errors.Denied):
        await JetStreamApi(door.connection).message_at(RECORDINGS_STREAM, 1)


@pytest.mark.parametrize("who", ["auth_proxy", "gateway", "identity"])
@pytest.mark.parametrize("what", ["PURGE", "DELETE", "UPDATE", "MSG.DELETE"])
async def test_no_service_takes_anything_back(server, door, who, what):
    await store(door)
    async with connect(server.connect_as(who)) as bus:
        with pytest.raises(errors.Denied):
            await JetStreamApi(bus.connection).call(f"STREAM.{what}.{RECORDINGS_STREAM}", {"seq": 1})


async def test_not_even_an_administrator_deletes_a_single_message(server, door):
    await store(door)
    async with connect(server.connect_as("administration")) as bus:
        api = JetStreamApi(bus.connection)
        for operation, request in (("MSG.DELETE", {"seq": 1}), ("PURGE", {})):
            with pytest.raises(Refused):
                await api.call(f"STREAM.{operation}.{RECORDINGS_STREAM}", request)
        assert (await api.call(f"STREAM.INFO.{RECORDINGS_STREAM}"))["state"]["messages"] == 3


async def test_a_full_stream_refuses_and_keeps_what_it_has(door, gateway):
    log = JetStreamLog(door, max_bytes=1024 * 1024)
    await log.ensure()
    first = await store(door)
    with pytest.raises(Refused) as caught:
        await _fill(log)
    assert not caught.value.again
    assert len([part async for part in JetStreamLog(gateway).read(first)]) == 3
    assert recording(first, "head") == f"rec.{first}.head"


async def _fill(log: JetStreamLog) -> None:
    """Four times what the stream takes."""
    for number in range(64):
        await log.append(new_id(NOW), Message("part", number, b"x" * 65536))
