# Works on a machine with nothing but Python 3.11 and make: `make demo`, `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# GPAW has an environment of its own, as on a cluster.
GPAW ?= .venv-gpaw

# One thread a process: more spin against each other on small machines (two processes of one thread do not).
export OMP_NUM_THREADS := 1

# The demo keeps its store, so a second `make demo` goes on where the first one stopped.
DEMO := runs/demo
DEMO_STORE := sqlite:///$(DEMO)/campaign.db

PYTEST := $(BIN)/python -m pytest
# Workers of the test run; tests/conftest.py says which tests share one.
JOBS ?= 2

.PHONY: help install demo demo-clean test lint format test-fast test-slow test-postgres test-slurm test-gpu build \
	constraints clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The constraints pin torch, so pip never resolves to a build of another version.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(STAMP) ## Create .venv and install the project with its tested dependencies

demo: $(STAMP) ## Run the quickstart campaign and say where its results are
	@mkdir -p $(DEMO)
	$(BIN)/activelearning run quickstart --store $(DEMO_STORE)
	$(BIN)/activelearning status quickstart --store $(DEMO_STORE)
	$(BIN)/activelearning best quickstart --store $(DEMO_STORE)
	@echo
	@echo "Where to look (after: source $(BIN)/activate)"
	@echo "  the store        $(DEMO)/campaign.db"
	@echo "  every evaluation activelearning export quickstart --store $(DEMO_STORE) --format csv --out $(DEMO)/all.csv"
	@echo "  the runs         activelearning ui"
	@echo "  start anew       make demo-clean demo"

demo-clean: ## Remove the demo's store and files
	rm -rf $(DEMO)

test: lint test-fast ## Lint, types, import contracts, then the tests (slow ones left out)

lint: $(STAMP) ## Check style, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-fast: $(STAMP) ## Run the tests that need no server, cluster or accelerator
	$(PYTEST) -m "not slow and not postgres and not slurm and not gpaw and not espresso and not gpu" -n $(JOBS) --dist loadgroup

test-slow: $(STAMP) ## Run the tests that take minutes each
	$(PYTEST) -m "slow and not postgres and not slurm and not gpaw and not espresso and not gpu" --timeout 3600

test-postgres: $(STAMP) ## Run the tests against PostgreSQL (a fixture starts the server)
	$(PYTEST) -m postgres

$(GPAW)/.installed: .ci/install-dft-tools
	.ci/install-dft-tools $(PYTHON) $(GPAW)
	@touch $@

test-slurm: $(STAMP) $(GPAW)/.installed ## Install Slurm, GPAW and Quantum ESPRESSO (Debian, as root), test the DFT queue
	ACTIVELEARNING_GPAW_PYTHON=$(abspath $(GPAW))/bin/python $(PYTEST) -m "slurm or gpaw or espresso" --timeout 1800

test-gpu: $(STAMP) ## Run the tests that need an accelerator
	$(PYTEST) -m gpu

build: $(STAMP) ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

constraints: $(STAMP) ## Write constraints.txt from what is installed in .venv
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed -E 's/\+cpu$$//'; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean: ## Remove what tools and builds leave behind (.venv and runs stay)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
