"""Hermetic tests: no process, no network beyond loopback sockets of the test's own, seconds in all."""
