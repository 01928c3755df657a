"""Tests and tools that run real processes: `kubelab` (clusters), `harness` (servers for tests), and one folder per theme of tests.

`stages` is what `make test` runs.
"""
