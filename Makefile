# make audit   audit the bundled potential on the bundled water box: a table, report.html, result.json
# make test    style, types, all tests
# make bench   what evaluations and steps cost
# make docs    the site, in site/
PYTHON ?= python3
BIN := .venv/bin
# CI adds the packages of other people's potentials, whose tests are skipped without them
TEST_EXTRAS ?= test
# tests of one file share what is dear to make, so they stay with one worker; each computes with one thread
TEST_WORKERS ?= 2
# seen by mlcalc as by any other user: nothing from the environment changes what is imported
unexport PYTHONPATH

.PHONY: audit test lint bench docs clean
.DELETE_ON_ERROR:

audit: .venv/.installed
	$(BIN)/mlcalc audit --json result.json --report report.html $(AUDIT_OPTIONS)

test: .venv/.installed-test lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_OPTIONS)

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.installed
	$(BIN)/python benchmarks/run.py

docs: .venv/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going docs site
	@echo site/index.html

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mlcalc needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# The stamps are newer than what they were made from as long as nothing has to be installed again.
.venv/.installed: .venv/bin/python setup.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .
	@touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[$(TEST_EXTRAS)]'
	@touch $@

clean:
	rm -rf .venv mlcalc.egg-info build report.html result.json mlcalc-audit site
