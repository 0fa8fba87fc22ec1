# make audit   audit the bundled potential on the bundled water box: a table, report.html, result.json
# make test    style, types, all tests
# make test-mace   the tests of MACE, whose package cannot be beside SevenNet's
# make bench   what evaluations and steps cost
PYTHON ?= python3
BIN := .venv/bin
# CI adds the packages of other people's potentials, whose tests are skipped without them
TEST_EXTRAS ?= test
# seen by mlcalc as by any other user: nothing from the environment changes what is imported
unexport PYTHONPATH

.PHONY: audit test test-mace lint bench clean
.DELETE_ON_ERROR:

audit: .venv/.installed
	$(BIN)/mlcalc audit --json result.json --report report.html $(AUDIT_OPTIONS)

test: .venv/.installed-test lint
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-mace: .venv-mace/.installed
	.venv-mace/bin/python -m pytest tests/potentials/test_mace.py $(PYTEST_OPTIONS)

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.installed
	$(BIN)/python benchmarks/run.py

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

# The packages of .venv, with another e3nn before the one there, and mace-torch. That sevenn does not like this e3nn, as
# pip will say, does no harm: it is not imported.
.venv-mace/.installed: .venv/.installed-test
	rm -rf .venv-mace
	$(PYTHON) -m venv .venv-mace
	packages='import sysconfig; print(sysconfig.get_path("purelib"))' && \
	  $(BIN)/python -c "$$packages" > "$$(.venv-mace/bin/python -c "$$packages")/first.pth"
	sed '/^e3nn=/d' constraints.txt > .venv-mace/constraints.txt
	.venv-mace/bin/python -m pip install --disable-pip-version-check -q -c .venv-mace/constraints.txt mace-torch
	.venv-mace/bin/python -c 'import mace'
	@touch $@

clean:
	rm -rf .venv .venv-mace mlcalc.egg-info build report.html result.json mlcalc-audit
