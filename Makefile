PYTHON ?= python3
BIN := .venv/bin
.PHONY: install dev quickstart test lint types check clean

install: .venv/.installed  ## make .venv with `mtan` in it

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

quickstart: install  ## the main job on a generated miniature, start to finish
	$(BIN)/mtan quickstart --out quickstart

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev
	$(BIN)/mypy

test: lint types  ## install, lint, type-check and run the whole suite
	$(BIN)/pytest
