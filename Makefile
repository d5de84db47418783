# Needs Python >= 3.11, git and make; everything else is installed into .venv.
#
#   make quickstart   install, run sweeps/quickstart.yaml, say where the report lies
#   make test         install with the development tools, run the default tests
#   make check        what CI runs: quickstart, tests (slow ones too), lint, types
#
# Another interpreter: make test PYTHON=/path/to/python3.12
# The smaller CPU build of PyTorch on Linux:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make quickstart

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# A stamp is touched when an install has ended well, so a second run installs nothing and a broken
# one starts again. They depend on pyproject.toml: new dependencies are installed by themselves.
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help quickstart test test-slow test-slurm test-browser lint types format hooks check clean

help:
	@sed -n '3,9p' Makefile | cut -c 3-

$(CREATED):
	@python=$$(tools/find-python $(PYTHON)); \
	rm -rf $(VENV); \
	echo "Making $(VENV) with $$python"; \
	"$$python" -m venv $(VENV)
	@touch $@

$(INSTALLED): $(CREATED) pyproject.toml
	@echo "Installing bench and PyTorch into $(VENV) (large downloads: a few minutes the first time)"
	$(PIP) install --quiet --editable .
	@touch $@

$(INSTALLED_DEV): $(CREATED) pyproject.toml
	@echo "Installing bench, PyTorch and the development tools into $(VENV) (a few minutes the first time)"
	$(PIP) install --quiet --editable '.[dev]'
	@touch $(INSTALLED) $@

quickstart: $(INSTALLED)
	$(BIN)/bench run sweeps/quickstart.yaml
	@echo "The report: reports/quickstart/report.html for a browser, reports/quickstart/report.md for a page"

test: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n auto

test-slow: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n auto -m "slow and not slurm and not gpu and not browser"

test-slurm: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m slurm

test-browser: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m browser

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED_DEV)
	$(BIN)/mypy

hooks: $(INSTALLED_DEV)
	$(BIN)/pre-commit install

check:
	.ci/run

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache {results,reports}/quickstart{,-unet}
