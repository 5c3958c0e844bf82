# Needs make and Python 3.11 or newer, nothing else: `make check` sets everything up in .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUIET := -qq --disable-pip-version-check # errors still show
SPREAD := --numprocesses auto --dist worksteal
CLIENTS := $(VENV)/clients
PINS := $(filter-out requirements/clients.txt,$(wildcard requirements/*.txt))

.PHONY: help setup demo test check bench lint types imports docs coverage format operators precisions modes pins clients clean
.NOTPARALLEL:

help:
	@echo "make demo      train a small network on digits, keep a few of them, prove and time the result"
	@echo "make test      the tests"
	@echo "make check     lint, types, imports, docs, and the tests with the coverage gate"
	@echo "make bench     the benchmarks"
	@echo "make applications  cuts a network of every family in keras.applications: half an hour"
	@echo "make format    let ruff format and mend what it can"
	@echo "make coverage  what the last 'make check' covered, of the whole package"
	@echo "make operators writes docs/operators.md from the translation tables"
	@echo "make precisions writes docs/precisions.md: what is cut in which precision, each cell tried"
	@echo "make modes     writes docs/modes.md from the plans of every mode on small models"
	@echo "make pins      write the versions installed in .venv into requirements/"
	@echo "make clients   other programs read what is written: MediaPipe, in an environment of its own"
	@echo "make clean     remove what the targets above leave behind, but not .venv"

setup: $(READY)

$(READY): pyproject.toml $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "setting up $(VENV) (downloads TensorFlow the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(QUIET) -r requirements/dev.txt
	@$(BIN)/python -m pip install $(QUIET) --no-deps \
	  --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	@$(BIN)/exporter demo --output demo --force

test: $(READY)
	$(BIN)/python -m pytest $(SPREAD)

check: lint types imports docs
	$(BIN)/python -m pytest $(SPREAD) --cov

bench: $(READY)
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

.PHONY: applications
applications: $(READY)
	$(BIN)/python tools/applications.py

lint: $(READY)
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --quiet --check

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-logo

docs: $(READY)
	$(BIN)/python -m pytest --quiet tests/project/test_docs.py

coverage: $(READY)
	$(BIN)/coverage report --include='exporter/*' --fail-under=0

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

operators: $(READY)
	$(BIN)/python tools/operators.py

precisions: $(READY)
	$(BIN)/python tools/precisions.py

modes: $(READY)
	PYTHONPATH=. $(BIN)/python tools/modes.py

pins: $(READY)
	$(BIN)/python tools/pins.py

$(CLIENTS)/.ready: requirements/clients.txt
	@echo "setting up $(CLIENTS) (downloads MediaPipe the first time)"
	@$(BIN)/python -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install $(QUIET) -r requirements/clients.txt
	@touch $@

clients: $(READY) $(CLIENTS)/.ready
	EXPORTER=$(abspath $(BIN))/exporter $(CLIENTS)/bin/python -m pytest \
	  -c tests/clients/pytest.ini tests/clients

clean:
	rm -rf demo dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
