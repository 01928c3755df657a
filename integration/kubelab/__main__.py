"""`python -m integration.kubelab`: the command without an installed entry point; detached runs start this way."""

from __future__ import annotations

from integration.kubelab.cli import main

if __name__ == "__main__":
    main()
