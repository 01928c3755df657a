"""Captures and their decoders, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from integration.recording.captures import Capture
from libs.common.recording.decoder import Decoder, make_decoder
from libs.common.recording.events import RESIZE, Piece

FOLDER = Path(__file__).parent / "captures"
NAMES = sorted(file.stem for file in FOLDER.glob("*.capture"))


def capture(name: str) -> Capture:
    return Capture.read(FOLDER / f"{name}.capture")


def decoder_of(read: Capture) -> Decoder:
    return make_decoder(
        read.head["upgrade"].lower().encode(),
        subprotocol=read.head["sec-websocket-protocol"].encode(),
        extensions=b"",
        stream_protocol=read.head["x-stream-protocol-version"].encode(),
    )


def feed(decoder: Decoder, chunks: list[tuple[bool, bytes]]) -> list[tuple[bool, Piece]]:
    return [
        (from_client, piece)
        for from_client, data in chunks
        for piece in (decoder.from_client(data) if from_client else decoder.from_server(data))
    ]


def joined(pieces: list[tuple[bool, Piece]]) -> dict[tuple[bool, int], list[bytes]]:
    """What each channel of each direction said. Sizes of windows stay apart, other bytes are one string."""
    found: dict[tuple[bool, int], list[bytes]] = {}
    for from_client, piece in pieces:
        listed = found.setdefault((from_client, piece.channel), [])
        if piece.channel == RESIZE or not listed:
            listed.append(piece.data)
        else:
            listed[0] += piece.data
    return found


def cut(chunks: list[tuple[bool, bytes]], sizes: list[int]) -> list[tuple[bool, bytes]]:
    """The same bytes, each chunk cut into pieces of these sizes, over and over."""
    made = []
    number = 0
    for from_client, data in chunks:
        at = 0
        while at < len(data):
            size = sizes[number % len(sizes)]
            made.append((from_client, data[at : at + size]))
            at += size
            number += 1
    return made
