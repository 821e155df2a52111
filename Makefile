# One command each: `make demo` runs the product, `make test` proves it.
# Needs Python 3.11 or newer, make and git; everything else is installed here.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VISITORS ?= 0
ROUNDS ?= 1000

.PHONY: demo test torture bench bench-smoke lint browser pgbouncer wrk clean
.DEFAULT_GOAL := test

$(VENV)/.installed: pyproject.toml
	@echo "==> Making the virtualenv in $(VENV) and installing the package and its test tools"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { echo "==> python3-venv is missing: installing it with apt"; \
		apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null && $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

browser: $(VENV)/.installed
	@$(BIN)/python -m tests.support.browsers

pgbouncer:
	@test -x /usr/sbin/pgbouncer || command -v pgbouncer >/dev/null || { \
		echo "==> pgbouncer is missing: installing it with apt"; \
		apt-get update -qq && apt-get install -y -qq pgbouncer >/dev/null; }

demo: $(VENV)/.installed $(if $(filter-out 0,$(VISITORS)),browser)
	@echo "==> A small shop and a fake Meta on 127.0.0.1; stop with Ctrl-C"
	@$(BIN)/python -m demo --visitors $(VISITORS)

lint: $(VENV)/.installed
	@echo "==> ruff, mypy --strict, import-linter"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: lint browser pgbouncer wrk $(VENV)/.bench-installed
	@echo "==> pytest (real servers, real SQLite files, real Chromium)"
	@PYTHONDEVMODE=1 $(BIN)/python -m pytest -q

torture: $(VENV)/.installed
	@echo "==> $(ROUNDS) rounds of killed processes and a failing Meta; nothing may be lost"
	@$(BIN)/python -m tests.torture --rounds $(ROUNDS)

$(VENV)/.bench-installed: $(VENV)/.installed
	@echo "==> Installing what the benchmarks measure beside this package"
	@$(BIN)/python -m pip install --quiet --editable . --group bench
	@touch $@

wrk:
	@command -v wrk >/dev/null || { \
		echo "==> wrk is missing: installing it with apt"; \
		apt-get update -qq && apt-get install -y -qq wrk >/dev/null; }

bench: $(VENV)/.bench-installed wrk browser
	@echo "==> Benchmarks: ratios of two things measured side by side"
	@$(BIN)/python -m tests.benchmarks

bench-smoke: $(VENV)/.bench-installed wrk browser
	@$(BIN)/python -m tests.benchmarks --smoke

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
