# Two commands are all a new machine needs: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# Tests that run at the same time; a file's tests stay together.
JOBS ?= 2

.PHONY: help install demo test lint types clean

help:
	@echo "make demo   meta-train on the built-in glyphs, export, plan, adapt, predict (results in $(DEMO)/)"
	@echo "make test   formatter, linter, type checker, tests"
	@echo "make lint | types | clean"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml setup.py constraints.txt $(wildcard edge/native/src/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cloud,ort,test]"
	@touch $@

demo: install
	$(BIN)/python examples/demo.py --out $(DEMO)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not follow editable installs: give it the packages under their import names.
types: install
	@mkdir -p build/types/edge_adapt
	@for package in cloud edge export; do ln -sfn ../../../$$package build/types/edge_adapt/$$package; done
	MYPYPATH=build/types $(BIN)/mypy -p edge_adapt

test: lint types
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
