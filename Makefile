# Everything from a fresh clone: each target installs what it needs, once.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: help demo test lint clean

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

demo: .venv/.installed ## the whole path on a drawn catalogue, then a live page
	$(BIN)/raysys demo

test: .venv/.installed-dev ## the whole test suite, linters included
	$(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

lint: .venv/.installed-dev ## ruff, mypy, import-linter
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

clean: ## remove what the demo and the tools made, not the environment
	rm -rf .raysys .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip

# torch first and by its exact version, so that no looser range can choose another build.
.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[cpu]"
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[cpu,dev]"
	touch $@
