# `make run` and `make test` do all the set-up on a machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Processes that run tests side by side; see tests/conftest.py.
JOBS   ?= 2
NUMBER ?= 500
EACH   ?= 20
SEED   ?= 0
READY  := $(VENV)/.ready
PYTEST := FLWR_TELEMETRY_ENABLED=0 $(BIN)/python -m pytest -q -n $(JOBS)

.PHONY: help run test check docs format coverage mutation chaos chaos-fleet clean

help:            ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(READY)    ## Train the default application on a simulated fleet
	$(BIN)/fedagent run

test: $(READY)   ## Run the tests, in two processes side by side (JOBS)
	$(PYTEST)

coverage: $(READY) ## Run the tests and require 90 % coverage of fedagent
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

mutation: $(READY) ## Plant small mistakes in the pure rooms: do the tests notice? (NUMBER, SEED)
	FLWR_TELEMETRY_ENABLED=0 $(BIN)/python -m benchmarks.mutation --number $(NUMBER) --seed $(SEED)

chaos: $(READY)  ## Kill runs at every edge of their journal, resume them, count what is lost (EACH, SEED)
	FLWR_TELEMETRY_ENABLED=0 $(BIN)/python -m benchmarks.reliability.chaos --each $(EACH) --seed $(SEED)

chaos-fleet: $(READY) ## Kill SuperLink, nodes and ServerApp of a real fleet, again and again (SEED)
	FLWR_TELEMETRY_ENABLED=0 $(BIN)/python -m benchmarks.reliability.fleet --seed $(SEED)

check: $(READY)  ## Lint, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)   ## Build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## Remove the environment and everything generated
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Nothing is installed again until pyproject.toml changes.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)
