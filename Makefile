# make demo: a first run on a bundled model. make test: all that must pass before a change goes in. make help: the rest.

PYTHON ?= python3
TASK ?= toxicity
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Set-up is a file, so that it runs once, and again when what it depends on changes.
$(VENV)/.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(VENV)/.stamp  ## a virtual environment in .venv with the locked versions

demo: $(VENV)/.stamp  ## one whole run on a bundled model, on the CPU
	$(BIN)/reveal-release run --task $(TASK) --model testbed-llama --output out/$(TASK) $(ARGS)

# Threads times processes beyond the cores make the tests several times slower.
test: $(VENV)/.stamp  ## ruff, mypy and the fast tests
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy src
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope

test-slow: $(VENV)/.stamp  ## the tests that train
	$(BIN)/python -m pytest -m slow

clean:  ## removes caches and build leftovers; keeps .venv and out
	rm -rf build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
