"""`python -m services.cli`: the command where no entry point is installed."""

from __future__ import annotations

from services.cli.main import main

if __name__ == "__main__":
    main()
