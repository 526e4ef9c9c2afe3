# Two commands on a fresh machine: `make demo` and `make test`. Both create .venv.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test lint format bench wheel clean

# torch first: an isolated build environment would fetch a second one.
.venv/ready: pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip "setuptools>=77" wheel ninja "pybind11>=2.12"
	$(BIN)/pip install --quiet "$(TORCH)" numpy
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[tasks,bench,test,dev]"
	touch $@

demo: .venv/ready  ## train a discrete VAE with every estimator on an embedded data set; table and pictures in runs/demo
	$(BIN)/python -m tasks.vae demo

test: .venv/ready
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: .venv/ready
	$(BIN)/pip wheel --no-build-isolation --no-deps --wheel-dir dist .

clean:
	rm -rf .venv build dist *.egg-info
