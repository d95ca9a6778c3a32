# Every target sets up what it needs. `make demo` and `make test` work on a machine with Python, git and make alone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.benchctl-setup
# CPU threads for tests: more processes than cores only wait for each other
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: help setup demo test lint types bench check clean

help:
	@echo "make setup   create $(VENV) with everything, exactly as locked"
	@echo "make demo    run suites/memory_scaling.yaml and print its tables"
	@echo "make test    run the tests"
	@echo "make lint    ruff"
	@echo "make types   mypy --strict"
	@echo "make bench   the benchmarks: speed and memory as ratios"
	@echo "make check   what CI runs after the tests"
	@echo "make clean   remove $(VENV) and caches; results stay"

setup: $(STAMP)

# uv comes from PATH, or is installed beside the environment; the lock pins every package, torch included.
# Bytecode is compiled once, here: every process that imports torch or transformers starts in half the time.
$(STAMP): pyproject.toml requirements.lock
	@command -v uv >/dev/null || test -x .uv/bin/uv || { $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet uv; }
	@uv=$$(command -v uv || echo .uv/bin/uv); \
	  test -x $(BIN)/python || $$uv venv --quiet --python $(PYTHON) $(VENV); \
	  VIRTUAL_ENV=$(VENV) $$uv pip sync --quiet --compile-bytecode requirements.lock && \
	  VIRTUAL_ENV=$(VENV) $$uv pip install --quiet --no-deps --editable .
	@touch $(STAMP)

demo: setup
	$(BIN)/benchctl run suites/memory_scaling.yaml
	$(BIN)/benchctl report --table efficiency --suite memory_scaling
	$(BIN)/benchctl report --table memory --suite memory_scaling

test: setup
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/pytest $(wildcard benchmarks/bench_*.py) --benchmark-enable --benchmark-only --benchmark-columns=min,median,max,rounds

# every shipped suite must plan, the published schema must be the code's, and this project's own results what is pinned
check: setup
	@for suite in suites/*.yaml; do \
	  $(BIN)/benchctl plan $$suite --no-predict --db $$(mktemp -d)/check.db >/dev/null && echo "plans: $$suite" || exit 1; done
	@$(BIN)/benchctl schema | diff - suites/schema.json && echo "schema: up to date"
	@db=$$(mktemp -d)/check.db; $(BIN)/benchctl run ci --db $$db && $(BIN)/benchctl check ci --db $$db

clean:
	rm -rf $(VENV) .uv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
