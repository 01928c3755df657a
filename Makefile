# Every wish is one command; `make help` lists them. All tools come from requirements.lock into .venv, nothing is installed elsewhere.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.lock-installed
UP_ARGS ?=
export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help up test lint types contracts generate check-generated test-hermetic test-integration kubelab bench bench-proxy lock format fuzz clean venv

help: ## List the commands
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*?## "} {printf "  make %-18s %s\n", $$1, $$2}'

up: $(STAMP) ## Set up and run Herdsman with a local cluster (options: UP_ARGS='--data-dir DIR --port PORT --no-local-cluster')
	@$(BIN)/herdsman up $(UP_ARGS)

test: $(STAMP) ## Set up and run everything that CI runs: lint, types, contracts, hermetic tests, integration on real servers
	@$(BIN)/python -m integration.stages lint types imports generated hermetic tools kubelab integration

lint: $(STAMP) ## Style
	@$(BIN)/python -m integration.stages lint

types: $(STAMP) ## Types (mypy --strict)
	@$(BIN)/python -m integration.stages types

contracts: $(STAMP) ## Import rules (the architecture diagram, checked)
	@$(BIN)/python -m integration.stages imports

generate: $(STAMP) ## Write proto/ from the declared contracts
	@$(BIN)/python -m libs.common.generator proto

check-generated: $(STAMP) ## Fail when proto/ is not what the contracts say
	@$(BIN)/python -m integration.stages generated

test-hermetic: $(STAMP) ## Tests that need nothing but Python
	@$(BIN)/python -m integration.stages hermetic

test-integration: $(STAMP) ## Tests on a real nats-server and real Kubernetes
	@$(BIN)/python -m integration.stages tools kubelab integration

kubelab: $(STAMP) ## Find or build the development cluster's binaries (some 15 minutes the first time, cached by content)
	@$(BIN)/herdsman-kubelab build

bench: $(STAMP) ## Measure the budgets and print a table
	@$(BIN)/python -m bench

bench-proxy: $(STAMP) ## Measure the front door beside Go, aiohttp and nginx; writes bench/RESULTS.md
	@$(BIN)/python -m bench.proxy

fuzz: $(STAMP) ## Fuzz the front door's readers, guided by coverage (FUZZ_SECONDS=600)
	@$(BIN)/pip install --quiet --require-hashes -r tests/relay/fuzz/requirements.txt
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(BIN)/python -m tests.relay.fuzz.deep

format: $(STAMP) ## Put the code in shape
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock: $(STAMP) ## Resolve dependencies again into requirements.lock (versions and hashes, no addresses)
	@$(BIN)/pip-compile --quiet --all-extras --generate-hashes --allow-unsafe --no-strip-extras --upgrade \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header -o requirements.lock pyproject.toml

venv: $(STAMP) ## Create .venv from the lock file

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Herdsman needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "cannot create $(VENV): on Debian, apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the locked dependencies into $(VENV) (about half a minute) ..."
	@$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q libs services integration $(VENV)/lib >/dev/null 2>&1 || true
	@touch $(STAMP)

clean: ## Remove what was generated in the checkout (not the data of `make up`)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
