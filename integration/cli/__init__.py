"""`herdsman` and `herdsman up` as real processes: start, restart, kill, stop, and what is left afterwards."""
