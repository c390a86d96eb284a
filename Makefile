# make demo       the whole job on simulated data, ending in a verdict and two reports
# make test       the tests                     make test-slow   the longer ones
# make test-elsewhere   the tests of what computes as other processors and the oldest libraries do
# make lint       ruff and mypy                 make env         the environment alone
# make docs       the documentation as a site, in build/site
#
# Works from any folder (make -C, make -f). Settings: VENV (where the environment is),
# PYTHON (what creates it), OUT (where the demo writes), TESTS (what pytest is told).

SHELL := /bin/bash
here := $(shell dirname "$(strip $(MAKEFILE_LIST))")
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
TESTS ?=
go := cd "$(here)" && set -euo pipefail &&
bin := "$(VENV)/bin"

.PHONY: env demo test test-slow test-elsewhere lint docs
.DEFAULT_GOAL := demo

# The stamp holds a checksum of what decides the environment, so that a second run reuses it.
env:
	@$(go) wanted=$$(cat pyproject.toml constraints.txt | cksum); \
	if [ "$$(cat "$(VENV)/.m1pipe-installed" 2>/dev/null)" != "$$wanted" ]; then \
	    [ -x $(bin)/python ] || "$(PYTHON)" -m venv "$(VENV)"; \
	    echo "installing m1pipe into $(VENV) (once)"; \
	    $(bin)/python -m pip install --quiet --disable-pip-version-check \
	        -c constraints.txt -e ".[test,lint]"; \
	    echo "$$wanted" > "$(VENV)/.m1pipe-installed"; \
	fi

demo: env
	@$(go) $(bin)/python -m m1pipe demo --out "$(OUT)" --force

test: env
	@$(go) $(bin)/python -m pytest -m "not slow" $(TESTS)

test-slow: env
	@$(go) $(bin)/python -m pytest -m slow $(TESTS)

test-elsewhere: env
	@$(go) VENV="$(VENV)" .ci/elsewhere

lint: env
	@$(go) $(bin)/ruff check . && $(bin)/ruff format --check . && $(bin)/mypy

docs: env
	@$(go) $(bin)/python -c "import material, mkdocstrings, mkdocs_jupyter" 2>/dev/null || \
	    $(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@$(go) NO_MKDOCS_2_WARNING=1 $(bin)/python -m mkdocs --quiet build -f docs/site/mkdocs.yml && echo build/site/index.html
