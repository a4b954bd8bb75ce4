# make demo: train on small digits and draw new ones. make test: lint, types and tests. Each makes a virtual environment
# with what it needs; PYTHON=python3.12 for another Python. make test-colab: the tests with what Colab's image holds.
# make docs: the site, into site/.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := pip install --quiet --disable-pip-version-check
COLAB := .venv-colab
COLAB_PYTHON ?= python3.13
TESTS ?= tests

.PHONY: demo docs test test-colab lint clean

demo: $(VENV)/installed
	$(BIN)/python train.py --config configs/digits.py
	$(BIN)/python sample.py --workdir runs/digits

# the site, into site/: a broken link or a public name without a docstring is an error
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: lint
	$(BIN)/pytest

# not what needs PyTorch and diffusers, which the image has in other versions
test-colab: $(COLAB)/installed
	$(COLAB)/bin/pytest $(TESTS) --ignore tests/test_interop.py --ignore tests/test_pipeline.py --ignore tests/test_judges.py

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: requirements.txt pyproject.toml
	@echo "installing JAX and what else jaxdiff needs into $(VENV), once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	@echo "installing what the tests need, PyTorch among it: once"
	$(BIN)/$(PIP) -e ".[test]"
	$(BIN)/$(PIP) --no-deps torch-fidelity==0.4.0 efficientnet_lite_pytorch==0.1.0  # they want other builds of PyTorch
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	@echo "installing what builds the site: once"
	$(BIN)/$(PIP) -e ".[docs]"
	touch $@

$(COLAB)/installed: tests/colab.txt requirements.txt pyproject.toml
	@echo "installing what Colab's image holds into $(COLAB), and jaxdiff beside it: once"
	$(COLAB_PYTHON) -m venv $(COLAB)
	$(COLAB)/bin/$(PIP) -r tests/colab.txt
	$(COLAB)/bin/$(PIP) -e . "pytest>=9" "pytest-xdist>=3.8"
	touch $@

clean:
	rm -rf $(VENV) $(COLAB) site
