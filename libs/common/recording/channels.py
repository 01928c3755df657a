"""What the small channels say: window sizes, and how the program ended. Both are JSON, cut anywhere. Pure."""

from __future__ import annotations

import json
from typing import Any

from libs.common.recording.events import Undecodable

MAX_RESIZE = 1024
MAX_STATUS = 64 * 1024
_MAX_SIDE = 65_535


class Resizes:
    """A stream of `{"Width": …, "Height": …}` values, one behind the other."""

    def __init__(self) -> None:
        self._part = b""
        self._decoder = json.JSONDecoder()

    def feed(self, data: bytes) -> list[bytes]:
        """The sizes that are complete now, each as `80x24`. Raises Undecodable for anything else."""
        text, at = (self._part + data).decode("latin-1"), 0
        found: list[bytes] = []
        while at < len(text):
            if text[at] in "\n\r\t ":
                at += 1
                continue
            try:
                value, at = self._decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as exc:
                # The rest may be to come, as long as it can still become a size.
                if text[at] != "{" or len(text) - at > MAX_RESIZE or isinstance(exc, RecursionError):
                    raise Undecodable("the session's stream of window sizes can't be read") from exc
                break
            found.append(_size(value))
        self._part = text[at:].encode("latin-1")
        return found


def _size(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise Undecodable("a window size is an object")
    sides = [next((v for k, v in value.items() if k.lower() == name), 0) for name in ("width", "height")]
    if not all(type(side) is int and 0 <= side <= _MAX_SIDE for side in sides):
        raise Undecodable("a window's sides are numbers of columns and rows")
    return b"%dx%d" % (sides[0], sides[1])


class Ending:
    """The error channel: a `Status` when the program ended, or plain text from very old servers."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        if len(self._data) + len(data) > MAX_STATUS:
            raise Undecodable("the session's end says more than anybody reads")
        self._data += data

    def read(self) -> tuple[int | None, str]:
        """(exit code, sentence). The code is None where the cluster named none; the sentence is empty for success."""
        if not self._data:
            return None, ""
        try:
            status = json.loads(self._data)
        except (ValueError, RecursionError):
            return None, self._data.decode("utf-8", "replace").strip()
        if not isinstance(status, dict):
            return None, str(status)
        if status.get("status") == "Success":
            return 0, ""
        message = str(status.get("message") or status.get("reason") or "failed")
        details = status.get("details")
        causes = details.get("causes") if isinstance(details, dict) else None
        for cause in causes if isinstance(causes, list) else []:
            if isinstance(cause, dict) and cause.get("reason") == "ExitCode":
                text = str(cause.get("message", ""))
                if text.isascii() and text.isdigit() and len(text) < 10:
                    return int(text), message
        return None, message
