# make demo   a call, heard: the server, the sample call, its words as they come
# make test   everything that is checked: format, lint, types, import rules, tests
# make setup  only the virtual environment in .venv
# make format put the code into its format
# make clean  remove what the commands above made

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CORE := $(VENV)/.core
ALL := $(VENV)/.all
FILES := aii tests scripts assets aii_server.py $(wildcard training benchmarks)

.PHONY: demo test setup format clean

demo: $(CORE)
	$(BIN)/python scripts/demo.py

test: $(ALL)
	$(BIN)/ruff format --check $(FILES)
	$(BIN)/ruff check $(FILES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

setup: $(ALL)

format: $(ALL)
	$(BIN)/ruff format $(FILES)
	$(BIN)/ruff check --fix $(FILES)

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache
	rm -rf .import_linter_cache .hypothesis
	find aii -name '*.nb[ci]' -delete

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.10 or later is needed: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "make: $(PYTHON) is older than Python 3.10; try: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; run: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What the product needs, its compiled loops, and the better detector of voices.
$(CORE): setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV): PyTorch, numpy and tiktoken; the first time takes a few minutes."
	$(PIP) install -qq --constraint constraints.txt $(TORCH)
	$(PIP) install -qq --constraint constraints.txt --editable '.[fast,vad]'
	@touch $@

$(ALL): $(CORE)
	$(PIP) install -qq --constraint constraints.txt --editable '.[test,dev,plot,fast,vad,web,metrics]'
	@touch $@
