# Needs only make and Python 3.11 or newer. Each target first installs everything into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUIET := -qq --disable-pip-version-check # prints errors only
SPREAD := --numprocesses auto --dist worksteal
CLIENTS := $(VENV)/clients
WEB := $(CLIENTS)/web
FIELD := $(VENV)/field/files
KERAS2 := $(basename $(notdir $(wildcard requirements/keras2/*.txt)))
PINS := $(filter-out requirements/clients.txt,$(wildcard requirements/*.txt))

.PHONY: help setup demo test check bench fuzz lint types imports docs docs-site coverage format \
  clean-install operators precisions modes keywords schemas applications pins clients field keras2 clean
FUZZ_EXAMPLES ?= 2000
.NOTPARALLEL:

help:
	@echo "make demo          train a small network on digits, keep three of them, and report"
	@echo "make test          run the tests"
	@echo "make check         lint, types, import rules, docs, and the tests with the coverage gate"
	@echo "make bench         run the benchmarks"
	@echo "make docs-site     build the documentation as pages, in build/site; a dead link is an error"
	@echo "make format        format the code and fix what ruff can fix"
	@echo "make coverage      show the coverage of the whole package, after 'make check'"
	@echo "make operators     write docs/operators.md from the operator tables"
	@echo "make keywords      write exporter/keywords.py from the fields of the options"
	@echo "make precisions    write docs/precisions.md: try every head in every precision"
	@echo "make modes         write docs/modes.md: plan every mode on small models"
	@echo "make applications  write docs/applications.md: cut one network per Keras family (30 minutes)"
	@echo "make fuzz          try thousands of damaged files of every kind (FUZZ_EXAMPLES=10000 for each)"
	@echo "make pins          write the versions installed in .venv into requirements/"
	@echo "make clients       let MediaPipe and onnxruntime-web, in environments of their own, read files that we cut"
	@echo "make field         build files of real producers, cut and check them, write docs/compatibility.md (2 hours)"
	@echo "make keras2        open files that real releases of Keras 2 write (Python 3.11; downloads each)"
	@echo "make clean-install install the wheel and the sdist in new environments (downloads dependencies)"
	@echo "make clean         remove generated files; keep .venv"

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

check: lint types imports docs-site
	$(BIN)/python -m pytest $(SPREAD) --cov

bench: $(READY)
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

applications: $(READY)
	$(BIN)/python tools/applications.py

lint: $(READY)
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --quiet --check

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-logo

docs: docs-site
	$(BIN)/python -m pytest --quiet tests/project/test_docs.py

docs-site: $(READY)
	@$(BIN)/sphinx-build -q -E -W --keep-going docs build/site
	@echo "open build/site/index.html"

fuzz: $(READY)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest $(SPREAD) tests/fuzz

coverage: $(READY)
	$(BIN)/coverage report --include='exporter/*' --fail-under=0

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

operators: $(READY)
	$(BIN)/python tools/operators.py

keywords: $(READY)
	$(BIN)/python tools/api_keywords.py

schemas: $(READY)
	$(BIN)/python tools/json_schemas.py

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

clean-install: $(READY)
	$(BIN)/python tools/clean_install.py

# npm, and for the C++ example g++ with nlohmann-json3-dev, come from the system.
$(WEB)/.ready: Makefile
	npm install --silent --no-audit --no-fund --prefix $(WEB) onnxruntime-web@1.30.0
	@touch $@

clients: $(READY) $(CLIENTS)/.ready $(WEB)/.ready
	EXPORTER=$(abspath $(BIN))/exporter WEB_PACKAGES=$(abspath $(WEB))/node_modules \
	  $(CLIENTS)/bin/python -m pytest -c tests/clients/pytest.ini tests/clients

field: $(READY)
	$(BIN)/python tools/field/build.py $(VENV)/field $(FIELD)
	$(BIN)/python tools/field/cut.py $(FIELD) $(FIELD)/results.json
	$(BIN)/python tools/field/page.py $(FIELD)

$(VENV)/keras2/%/.ready: requirements/keras2/%.txt
	@echo "setting up $(@D) (downloads TensorFlow)"
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install $(QUIET) -r $<
	@touch $@

keras2: $(READY) $(KERAS2:%=$(VENV)/keras2/%/.ready)
	@set -e; for release in $(KERAS2); do \
	  $(VENV)/keras2/$$release/bin/python tools/keras2/build_files.py $(VENV)/keras2/files/$$release; \
	done
	$(BIN)/python tools/keras2/check_files.py $(KERAS2:%=$(VENV)/keras2/files/%)

clean:
	rm -rf build demo dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
