# Everything begins with `make quickstart`; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

# The mark of an installation counts only as long as its Python answers (systems replace theirs, people delete parts).
ifneq (,$(wildcard .venv/.installed))
ifneq (ok,$(shell $(BIN)/python -c 'print("ok")' 2>/dev/null))
$(shell rm -f .venv/.installed .venv/.installed-dev)
endif
endif

.PHONY: help install quickstart test lint types reference constraints clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.installed  ## make .venv with `mtan` in it (skipped when it is there)

# A .venv that does not answer, or was made by too old a Python, is made anew.
.venv/.installed: pyproject.toml constraints.txt
	@$(BIN)/python -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null || { \
	  $(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	    echo "Expected Python 3.11 or newer, found $$($(PYTHON) --version 2>&1 | tail -n 1): name another one, as in 'make $(or $(firstword $(MAKECMDGOALS)),install) PYTHON=python3.12'." >&2; exit 2; }; \
	  echo "$(PYTHON) -m venv .venv"; $(PYTHON) -m venv --clear .venv; }
	$(PIP) -e .
	@touch $@

.venv/.installed-dev: .venv/.installed
	$(PIP) -e '.[dev]'
	@touch $@

quickstart: install  ## the main job on a generated miniature, start to finish, into quickstart/
	$(BIN)/mtan quickstart --out quickstart

# Two processes of one thread each: most tests train networks too small for more.
test: lint types  ## install, lint, check types and run the whole suite
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

lint: .venv/.installed-dev  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev  ## check types
	$(BIN)/mypy

reference: install  ## write the pages and schemas of the configurations in docs/ anew
	$(BIN)/mtan decathlon configuration > docs/configuration.md
	$(BIN)/mtan decathlon configuration --json > docs/configuration.schema.json
	$(BIN)/mtan dense configuration > docs/dense-configuration.md
	$(BIN)/mtan dense configuration --json > docs/dense-configuration.schema.json

constraints:  ## look up the newest dependencies and pin them in constraints.txt
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/python -m pip install --disable-pip-version-check --upgrade setuptools '.[dev]'
	{ sed -n '/^#/p' constraints.txt; \
	  build/constraints/bin/python -m pip freeze --all --exclude pip --exclude mtan-decathlon; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean:  ## remove .venv, caches and what was built (never quickstart/ or runs/)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
