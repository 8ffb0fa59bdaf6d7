# All the set-up there is. `make quickstart` and `make test` create .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install quickstart test test-all lint types layers unit benchmark clean

help:  ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## Create .venv and install the package with what its tests need.

# torch first and by itself, so that nothing that needs it can pull in another build.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: $(INSTALLED)  ## Raw Bokmål in, a model that writes and reads out: a quarter of an hour on two cores.
	$(BIN)/normistral run recipes/quickstart.yaml

test: lint types layers unit  ## Lint, types, import layers and the fast tests.

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

layers: $(INSTALLED)
	$(BIN)/lint-imports

unit: $(INSTALLED)
	$(BIN)/pytest

test-all: lint types layers  ## The slow tests too (whole runs, kills, downloads).
	$(BIN)/pytest -m 'slow or not slow' --hypothesis-profile default

benchmark: $(INSTALLED)  ## Tokens per second of our training step beside Hugging Face's.
	$(BIN)/python benchmarks/train_throughput.py

clean:  ## Remove .venv and caches; runs stay.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
