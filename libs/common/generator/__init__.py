"""Renders `proto/` from what the code declares: `python -m libs.common.generator proto [--check]`.

`documents` renders each file's content (pure), `samples` makes the example of each message whose bytes are kept for ever
(`proto/golden/<version>/`), `__main__` writes or compares.
"""
