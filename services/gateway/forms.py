"""Forms of strangers as OAuth 2.0 and what is built on it have them: read with limits, refused as RFC 6749 5.2 has it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import web

from services.gateway.answers import answer
from services.gateway.bodies import read_bytes
from services.gateway.call import Call

MAX_FORM, MAX_FIELDS, MAX_TOKEN = 64 * 1024, 20, 16 * 1024
HEADERS = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Wrong(Exception):
    """What was asked can't be done: the error's name and words for whoever asked."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


async def read_form(call: Call, repeatable: tuple[str, ...] = ()) -> Mapping[str, str]:
    """The fields, without empty ones; of `repeatable` ones the last. Raises Wrong."""
    if call.request.content_type != "application/x-www-form-urlencoded":
        raise Wrong("invalid_request", "the body must be application/x-www-form-urlencoded")
    if (call.request.content_length or 0) > MAX_FORM:
        raise Wrong("invalid_request", f"the form is larger than {MAX_FORM} bytes")
    data = await read_bytes(call.request)
    try:
        pairs = (
            parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
            if len(data) <= MAX_FORM
            else None
        )
    except ValueError:
        pairs = None
    if pairs is None:
        raise Wrong(
            "invalid_request", f"the form can't be read: it has at most {MAX_FORM} bytes and {MAX_FIELDS} fields"
        )
    names = [name for name, _ in pairs if name not in repeatable]
    if len(names) != len(set(names)):
        raise Wrong("invalid_request", "a parameter was given twice")
    # RFC 6749 3.2: what is empty counts as left out, what is unknown is ignored.
    return {name: value for name, value in pairs if value}


def answer_problem(status: int, error: str, description: str) -> web.Response:
    """RFC 6749 5.2: the words are printable ASCII without quotes and backslashes."""
    words = "".join("'" if c == '"' else c for c in description if " " <= c <= "~" and c != "\\")
    return answer({"error": error, "error_description": words}, status, headers=HEADERS)
