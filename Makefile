# Everything a newcomer needs is one word; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup system-packages proto run demo test test-clients attacks proof policies bench clients check check-dashboard format lock clean

PYTHON ?= python3
# One more than there are cores: tests wait nearly as long as they compute.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRAINING := $(VENV)/.training
UV := uv==0.13.8
PROTOS := $(shell find proto -name '*.proto' -not -path '*/third_party/*')

help: ## Show this help
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## Make the environment: packages pinned by hash, contracts compiled

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Steward needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml deploy/requirements-dev.txt proto/hatch_build.py $(PROTOS) | $(BIN)/python
	@# The list has all there is to install: `--no-deps`, or old bounds of one package would forbid it.
	@if command -v uv >/dev/null; then \
	  uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r deploy/requirements-dev.txt; \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r deploy/requirements-dev.txt; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

$(TRAINING): pyproject.toml | $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group training
	@touch $@

system-packages: ## Install what the tests of machines use of the system: a container engine, bwrap, runsc
	tools/system-packages.sh

proto: $(READY) ## Compile the contracts
	$(BIN)/python proto/hatch_build.py

run: $(READY) ## Start the server: gRPC on 50051, REST and WebSocket on 8080
	@exec $(BIN)/steward serve

demo: $(READY) ## Watch an agent borrow, spend, run out of money and give the rest back
	@exec $(BIN)/python clients/python/examples/demo.py $(DEMO)

test: $(READY) ## Run the tests
	@# Where Python is told to write no bytecode, every process that tests start would compile again.
	@$(BIN)/python -m compileall -q server gateway clients/python proto
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

test-clients: $(READY) ## Build the clients in other languages, and run their script and grpcurl
	$(BIN)/python -m pytest -n 0 -m clients tests/clients tests/e2e/test_grpcurl.py

attacks: $(READY) ## Try what an attacker in an environment would, and list it
	$(BIN)/python -m pytest -n 0 -v -m attack tests/integration/environments tests/unit/environments

proof: $(READY) $(TRAINING) ## Run the slow proofs at full size
	$(BIN)/python -m pytest -m proof --timeout=0 $(TESTS)

policies: $(READY) $(TRAINING) ## Train the policies that ship again, in minutes
	$(BIN)/python -m steward_server.inference.training $(POLICIES)

bench: $(READY) ## Measure speed against the goals
	$(BIN)/python -m tests.benchmarks $(BENCH)

clients: $(READY) ## Generate the code of the clients, Java's and Rust's aside, whose builds do it
	npm --prefix clients/typescript ci --silent && npm --prefix clients/typescript run --silent generate
	$(BIN)/buf generate --template clients/go/buf.gen.yaml --path proto/steward

check: $(READY) ## Format, lint, types, contracts, architecture: what CI runs beside the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf lint
	$(BIN)/python -m steward_server.settings --check docs/configuration.md
	$(BIN)/python -m steward_server.playbooks.schema --check docs

check-dashboard: $(READY) ## Types of the dashboard, and what it has vendored; needs npm
	npm --prefix tools/dashboard ci --silent
	$(BIN)/python -m steward_gateway.describe openapi > tools/dashboard/openapi.json
	npm --prefix tools/dashboard run --silent check

format: $(READY) ## Put the source into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format -w proto
	$(BIN)/python -m steward_server.settings --write docs/configuration.md
	$(BIN)/python -m steward_server.playbooks.schema --write docs

lock: $(READY) ## Pin every package again, by hash
	$(BIN)/python -m pip install --quiet $(UV)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header pyproject.toml -o deploy/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header pyproject.toml --group dev -o deploy/requirements-dev.txt

clean: ## Remove the environment and everything generated; data stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find proto/steward \( -name '*_pb2*' -o -name descriptors.binpb \) -delete
