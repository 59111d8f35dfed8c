# Two commands do everything on a fresh machine:
#   make demo   set up, then run the whole chain on a digital phantom and write demo/report.html
#   make test   set up, then run all checks and tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   ?= demo
# 1: a Slicer test that cannot run fails; empty: it is skipped (the test bed works on Linux x86_64 only).
REQUIRE_TEST_BED ?= 1

# What the Slicer test bed (Qt and VTK without a screen) needs of the system, and the Debian packages that have it.
LIBRARIES := libEGL.so.1 libGL.so.1 libfontconfig.so.1 libdbus-1.so.3 libxkbcommon.so.0 libglib-2.0.so.0 libX11.so.6
PACKAGES  := libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri libfontconfig1 libdbus-1-3 libxkbcommon0 libglib2.0-0 libx11-6 fonts-dejavu-core

.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz clean system-packages

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.app
	$(BIN)/crossmoda demo --output "$(DEMO)"

# A worker that crashes is not replaced: with whole files per worker, pytest-xdist would wait for its tests for ever.
test: $(VENV)/.test lint
	CROSSMODA_REQUIRE_TEST_BED=$(REQUIRE_TEST_BED) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

# Damaged files to every reader; FUZZ_INPUTS=20000 SEED=2 make fuzz tries others.
fuzz: $(VENV)/.app
	$(BIN)/python Testing/fuzz/fuzz.py --inputs $(or $(FUZZ_INPUTS),6000) --seed $(or $(SEED),1)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

system-packages:
	@echo $(PACKAGES)

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python is missing; install it: sudo apt-get install python3 python3-venv"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "The pinned versions need Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing; install it: sudo apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.app: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[app]"
	@touch $@

$(VENV)/.test: $(VENV)/.app
	@for library in $(LIBRARIES); do /sbin/ldconfig -p | grep -q "$$library" || \
	  { echo "The Slicer test bed needs $$library; install it: sudo apt-get install $(PACKAGES)"; exit 2; }; done
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[app,study,training,test,slicer-test]"
	@touch $@
