# Two commands do everything on a fresh machine:
#   make demo   set up, then run the whole chain on a digital phantom and write demo/report.html
#   make test   set up, then run all checks and tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   ?= demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.app
	$(BIN)/crossmoda demo --output "$(DEMO)"

test: $(VENV)/.test lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
	@ldconfig -p | grep -q libEGL.so.1 || \
	  { echo "The Slicer test bed draws through EGL; install it: sudo apt-get install libegl1 libgl1"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[app,test,slicer-test]"
	@touch $@
