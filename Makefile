# make demo: train on small digits and draw new ones. make test: lint, types and tests. Each makes a virtual environment
# with what it needs; PYTHON=python3.12 for another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/python train.py --config configs/digits.py
	$(BIN)/python sample.py --workdir runs/digits

test: lint
	$(BIN)/pytest

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: requirements.txt pyproject.toml
	@echo "installing JAX and what else jaxdiff needs into $(VENV), once"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "installing what the tests need, PyTorch among it: once"
	$(PIP) -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV)
