# garch_platform: `make` or `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(shell command -v python3.11 python3))
WORKERS ?= 3
WORKSPACE ?= $(or $(GARCH_WORKSPACE),.garch/demo-real)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(STAMP) ## create .venv and install the tested set of packages (2-3 minutes, once)

$(STAMP): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; name one: make venv PYTHON=/path/to/python3.11"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && "$(PYTHON)" -m venv .venv; } || { \
	  echo "Python's venv module is needed; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Installing $$(grep -c == constraints.txt) packages into .venv (2-3 minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
	  -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
	@echo "Installed: $$($(BIN)/python --version), $$($(BIN)/dagster --version)"

.PHONY: kernels
kernels: venv ## compile the numerical kernels into the cache (once, and after they change)
	@$(BIN)/garch compile

.PHONY: demo
demo: kernels ## rank pairs on real bars shipped with a dependency, and on a simulated market
	@$(BIN)/garch demo

.PHONY: ui
ui: kernels ## open the Dagster UI of the demo (or of WORKSPACE=PATH) on http://127.0.0.1:3000
	@[ -d "$(WORKSPACE)" ] || { echo "No workspace $(WORKSPACE) yet: run make demo, or name one: make ui WORKSPACE=PATH"; exit 1; }
	@$(BIN)/garch --workspace "$(WORKSPACE)" ui

.PHONY: refresh
refresh: kernels ## run the history, daily and ranking jobs for what is new
	@$(BIN)/garch refresh

.PHONY: system
system: ## install PostgreSQL's binaries and Chromium from Debian's packages where absent
	@.ci/system_packages

.PHONY: test
test: kernels system ## set up all that the tests need, and run them
	@$(BIN)/python -m pytest -n $(WORKERS)

.PHONY: lint
lint: venv ## ruff (with its security rules), formatting, mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

.PHONY: format
format: venv ## rewrite the sources in the project's format
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

.PHONY: bench
bench: kernels ## run the benchmarks, beside the peers that they compare with
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
	  -c constraints.txt -e '.[dev,bench]'
	@for script in benchmarks/bench_*.py; do [ -e "$$script" ] || continue; \
	  echo "$$script"; $(BIN)/python "$$script"; done

.PHONY: clean
clean: ## remove caches and builds (never .venv and never a workspace)
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find garch_platform garch_platform_tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
