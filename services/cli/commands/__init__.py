"""One file for each wish; `services.cli.main` holds the table. A command parses, calls the hub, prints, and nothing else."""
