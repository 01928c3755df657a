"""What of a program's output a viewer's terminal may be sent. Pure, incremental.

A recording is written by whoever was in the session, and its viewer is an administrator. So only sequences pass that draw: whatever asks
the terminal to answer (its answer would be typed into the viewer's shell), touches clipboard, title, keyboard, mouse, printer or
windows, or is a string for the terminal itself (OSC, DCS, APC, PM, SOS) is left out. What is not on the lists does not pass.
Sequences as in ECMA-48 and xterm's "Control Sequences" (ctlseqs).
"""

from __future__ import annotations

import codecs

ESC = "\x1b"
_DRAWING = frozenset("\a\b\t\n\v\f\r\x0e\x0f")
_CANCELS = frozenset("\x18\x1a")
_ESCAPES = frozenset("78DEHMc")
_CHARSETS = {"(": "0AB", ")": "0AB", "#": "3456789"}
_CSI = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefgmrsu")
_MODES = frozenset(["4", "20"])
_PRIVATE_MODES = frozenset(["5", "6", "7", "12", "25", "47", "1047", "1048", "1049", "2026"])
_MAX_SEQUENCE = 64
RESTORE = "\x1b[?1049l\x1b[?47l\x1b[?2026l\x1b[!p\x1b[?7h\x1b[?25h\x1b[?5l\x1b[0m\x1b[r\x1b(B\x1b)B\x0f"
"""Makes the viewer's terminal what it was, whatever was drawn. The scrolling region is the whole screen again."""


class Screen:
    """Fed with bytes as they come; a sequence passes whole or not at all, so what has passed can be followed by anything."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._state = self._ground
        self._sequence = ""
        self._out: list[str] = []

    def feed(self, data: bytes) -> str:
        """What may be shown of these bytes."""
        for character in self._text.decode(data):
            self._state(character)
        shown, self._out = "".join(self._out), []
        return shown

    # Each state takes one character. C1 controls (U+0080 to U+009F) begin sequences in some terminals: they never pass.

    def _ground(self, c: str) -> None:
        if c == ESC:
            self._sequence, self._state = "", self._escape
        elif c >= " ":
            if c != "\x7f" and not "\x80" <= c <= "\x9f":
                self._out.append(c)
        elif c in _DRAWING:
            self._out.append(c)

    def _escape(self, c: str) -> None:
        if c == "[":
            self._state = self._csi
        elif c in "]PX^_":
            self._state = self._string
        elif " " <= c <= "/":
            self._sequence, self._state = c, self._intermediate
        else:
            if c in _ESCAPES:
                self._out.append(ESC + c)
            self._leave(c, at="0")

    def _intermediate(self, c: str) -> None:
        if " " <= c <= "/" and len(self._sequence) < _MAX_SEQUENCE:
            self._sequence += c
            return
        if c in _CHARSETS.get(self._sequence, ""):
            self._out.append(ESC + self._sequence + c)
        self._leave(c, at="0")

    def _csi(self, c: str) -> None:
        if " " <= c <= "?":
            # Of an endless one nothing is kept but that it is too long.
            self._sequence += c if len(self._sequence) <= _MAX_SEQUENCE else ""
            return
        if "@" <= c <= "~" and _may_pass(self._sequence, c):
            self._out.append(f"{ESC}[{self._sequence}{c}")
        self._leave(c, at="@")

    def _string(self, c: str) -> None:
        if c == ESC:
            self._state = self._string_escape
        elif c == "\a" or c in _CANCELS:
            self._state = self._ground

    def _string_escape(self, c: str) -> None:
        # ESC ends a string in every terminal; what follows is the terminator's backslash, or another sequence.
        self._sequence = ""
        if c == "\\":
            self._state = self._ground
        else:
            self._escape(c)

    def _leave(self, c: str, *, at: str) -> None:
        """Back to the ground after `c`, which ended a sequence if it is `at` or above; else it is read anew."""
        self._state = self._ground
        if not at <= c <= "~" and c not in _CANCELS:
            self._ground(c)


def _may_pass(parameters: str, final: str) -> bool:
    """Whether a control sequence only draws."""
    if len(parameters) > _MAX_SEQUENCE:
        return False
    if parameters == "!" and final == "p":
        return True
    if final == "q":
        return parameters[-1:] == " " and parameters[:-1] in ("", "0", "1", "2", "3", "4", "5", "6")
    private = parameters[:1] == "?"
    numbers = parameters[1:] if private else parameters
    if not all(c.isdigit() or c in ";:" for c in numbers) or not numbers.isascii():
        return False
    listed = numbers.replace(":", ";").split(";")
    if any(len(n) > 4 for n in listed):
        return False
    if final in "hl":
        allowed = _PRIVATE_MODES if private else _MODES
        return all(n in allowed for n in listed)
    if private:
        return final in "JK"
    if final == "T":
        return len(listed) == 1
    return final in _CSI
