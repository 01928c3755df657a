"""`python -m services.agent run --hub URL --ca-file FILE …`; the entry point `herdsman-agent` comes here too."""

from __future__ import annotations

from libs.common.runtime import lean


def main() -> None:
    with lean.without(*lean.TERMINAL), lean.without_system_trust():
        from services.agent.main import main as run
    run()


if __name__ == "__main__":
    main()
