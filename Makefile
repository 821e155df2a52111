# One command each: `make demo` runs the product, `make test` proves it.
# Needs Python 3.11 or newer, make and git; everything else is installed here.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VISITORS ?= 0
PORT ?= 8000
META_PORT ?= 8001
FAULTS ?=
ROUNDS ?= 1000
SECONDS ?= 600
AGAINST ?=
ONLY ?=
# How many processes run the tests.
WORKERS ?= 2
WITH ?= $(BIN)/python
# The rooms of the package that need no server and no browser.
UNIT := tests/capture tests/config tests/delivery tests/meta tests/page tests/report tests/testing

.PHONY: demo demo-production demo-frontends nginx test test-browsers test-frontends test-doors test-journeys test-wheel test-lowest script attack torture torture-postgres soak shape same bench bench-smoke lint browser browsers pgbouncer npm wrk clean
.DEFAULT_GOAL := test

$(VENV)/.made:
	@echo "==> Making the virtualenv in $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { echo "==> python3-venv is missing: installing it with apt"; \
		apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null && $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.made
	@echo "==> Installing the package and its test tools: the group dev of pyproject.toml"
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@ $(VENV)/.demo-installed

# What the shop and the fake Meta need, without tests and browsers.
$(VENV)/.demo-installed: pyproject.toml | $(VENV)/.made
	@echo "==> Installing the package, uvicorn and python-multipart: the group demo of pyproject.toml"
	@$(BIN)/python -m pip install --quiet --editable . --group demo
	@touch $@

browser: $(VENV)/.installed
	@$(BIN)/python -m tests.support.browsers

browsers: $(VENV)/.installed
	@$(BIN)/python -m tests.support.browsers --all

pgbouncer:
	@test -x /usr/sbin/pgbouncer || command -v pgbouncer >/dev/null || { \
		echo "==> pgbouncer is missing: installing it with apt"; \
		apt-get update -qq && apt-get install -y -qq pgbouncer >/dev/null; }

npm:
	@command -v npm >/dev/null || { echo "==> npm is missing: installing it with apt"; \
		apt-get update -qq && apt-get install -y -qq npm >/dev/null; }

demo: $(VENV)/$(if $(filter-out 0,$(VISITORS)),.installed browser,.demo-installed)
	@echo "==> A small shop and a fake Meta on 127.0.0.1; stop with Ctrl-C"
	@$(BIN)/python -m demo --visitors $(VISITORS) --faults "$(FAULTS)" --port $(PORT) --meta-port $(META_PORT)

nginx:
	@test -x /usr/sbin/nginx || command -v nginx >/dev/null || { \
		echo "==> nginx is missing: installing it with apt"; \
		apt-get update -qq && apt-get install -y -qq nginx-light >/dev/null; }

demo-production: $(VENV)/.installed browser nginx
	@echo "==> nginx, gunicorn with 4 processes, 2 couriers and PostgreSQL on 127.0.0.1; stop with Ctrl-C"
	@$(BIN)/python -m demo.production --port $(PORT)

# ONLY=react needs no Next.js, which takes 340 MB.
demo-frontends: $(VENV)/.demo-installed npm
	@echo "==> React's pages and Next.js beside an API in Python, on 127.0.0.1; stop with Ctrl-C"
	@$(BIN)/python -m demo.frontends --port $(PORT) --only "$(ONLY)"

lint: $(VENV)/.installed
	@echo "==> ruff, mypy --strict, pyright, import-linter"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes capi_middleware --ignoreexternal >$(VENV)/verifytypes \
		|| { cat $(VENV)/verifytypes; exit 1; }
	@$(BIN)/lint-imports

test: lint browsers nginx pgbouncer npm wrk $(VENV)/.bench-installed
	@echo "==> pytest (real servers, real SQLite files, real browsers)"
	@PYTHONDEVMODE=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "not browser"
	@PYTHONDEVMODE=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m browser

# ONLY=WORDS plays the scenes whose name has them.
test-browsers: browsers
	@echo "==> The table of pages, policies, routers and visits in Chromium, Firefox and WebKit"
	@$(BIN)/python -m tests.browsers --only "$(ONLY)"

test-frontends: browsers npm
	@echo "==> React's pages and Next.js on the API's site and on another, in three browsers"
	@CAPI_FRONTENDS=all $(BIN)/python -m pytest -q --timeout 600 tests/browsers/test_frontends.py

test-doors: $(VENV)/.bench-installed
	@echo "==> Every behaviour of an app behind every server, beside the app without us"
	@$(BIN)/python -m pip install --quiet --group doors
	@CAPI_TEST_DOORS=all $(BIN)/python -m pytest -q --timeout 300 tests/doors

test-journeys: browsers npm
	@echo "==> Every journey of an order, and every banner of consent in three browsers"
	@CAPI_JOURNEYS=all CAPI_INTERLEAVINGS=300 $(BIN)/python -m pytest -q --timeout 900 tests/journeys tests/browser/test_banners.py

# WITH=3.13 takes another Python that is installed.
test-wheel: $(VENV)/.installed
	@echo "==> The unit tests against the built wheel on $(WITH), with no source beside them"
	@rm -rf build/wheel && mkdir -p build/wheel
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	@PYENV_VERSION=$(WITH) $(BIN)/uv venv --quiet --python $(WITH) build/wheel/venv
	@$(BIN)/uv pip install --quiet --python build/wheel/venv --group dev build/wheel/*.whl
	@cp -r tests demo pyproject.toml README.md CHANGELOG.md Makefile build/wheel/
	@cd build/wheel && venv/bin/python -m pytest -q $(UNIT)

test-lowest: $(VENV)/.installed
	@echo "==> The unit and contract tests with the oldest dependencies that are declared"
	@rm -rf build/lowest && mkdir -p build/lowest
	@$(BIN)/uv pip compile --quiet --resolution lowest-direct --extra cli --extra postgres \
		--python $(BIN)/python --output-file build/lowest/constraints.txt pyproject.toml
	@$(BIN)/uv venv --quiet --python $(BIN)/python build/lowest/venv
	@$(BIN)/uv pip install --quiet --python build/lowest/venv --group dev --editable . \
		--constraint build/lowest/constraints.txt
	@build/lowest/venv/bin/python -m pytest -q -W default::DeprecationWarning $(UNIT) tests/store tests/doors

script: $(VENV)/.installed
	@$(BIN)/python -m tests.support.script

torture: $(VENV)/.installed
	@echo "==> $(ROUNDS) rounds of killed processes and a failing Meta; nothing may be lost"
	@$(BIN)/python -m tests.torture --rounds $(ROUNDS)

soak: $(VENV)/.installed
	@echo "==> $(SECONDS) seconds at 100 requests a second with a Meta that flaps; nothing may grow"
	@$(BIN)/python -m tests.torture.soak --seconds $(SECONDS)

attack: $(VENV)/.installed
	@echo "==> $(SECONDS) seconds of what nobody should send, at uvicorn and gunicorn"
	@$(BIN)/python -m tests.attack --seconds $(SECONDS)

torture-postgres: $(VENV)/.installed
	@echo "==> 66 scenes of PostgreSQL servers that fail over and of a pgbouncer; nothing may be lost or counted twice"
	@$(BIN)/python -m tests.torture --failover

shape: $(VENV)/.installed
	@$(BIN)/python -m tests.shape

same: $(VENV)/.installed
	@test -n "$(AGAINST)" || { echo "found no AGAINST, expected a git revision: make same AGAINST=HEAD~5"; exit 2; }
	@$(BIN)/python -m tests.same --against $(AGAINST)

$(VENV)/.bench-installed: $(VENV)/.installed
	@echo "==> Installing what the benchmarks measure beside this package"
	@$(BIN)/python -m pip install --quiet --editable . --group bench
	@touch $@

wrk:
	@command -v wrk >/dev/null || { \
		echo "==> wrk is missing: installing it with apt"; \
		apt-get update -qq && apt-get install -y -qq wrk >/dev/null; }

# AGAINST=REV measures this tree beside another git revision instead.
bench: $(VENV)/.bench-installed $(if $(AGAINST),,wrk browser)
	@echo "==> Benchmarks: ratios of two things measured side by side"
	@$(BIN)/python -m tests.benchmarks $(if $(AGAINST),--against $(AGAINST))

bench-smoke: $(VENV)/.bench-installed wrk browser
	@$(BIN)/python -m tests.benchmarks --smoke

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
