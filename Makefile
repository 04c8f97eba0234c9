# Everything a person or a machine does here. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# An editable install knows the modules that there were when it was made: a changed folder makes it anew.
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*) $(shell find src -type d ! -name __pycache__ -newer .venv/.core 2>/dev/null)

.DEFAULT_GOAL := help
CXX ?= g++
.PHONY: help setup setup-dev demo test sanitize lint format bench docs clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.core: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e .
	$(BIN)/python -m compileall -q src  # pip compiles what it copies, and an editable install copies nothing
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.core  ## Make .venv, install, build the native module

setup-dev: $(VENV)/.dev  ## The same with the development tools

demo: setup  ## Train on scikit-learn's digits, predict one picture, write a report
	$(BIN)/python examples/demo.py

test: setup-dev  ## Run the tests
	$(BIN)/python -m pytest

# A build of its own, which sees the development tools of .venv but not its editable install.
SANITIZED := build/sanitize
sanitize: setup-dev  ## Run the tests of the kernels and the gate under AddressSanitizer and UBSan
	test -x $(SANITIZED)/bin/python || $(BIN)/python -m venv $(SANITIZED)
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > $$($(SANITIZED)/bin/python -c "import site; print(site.getsitepackages()[0])")/dev.pth
	$(SANITIZED)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --upgrade --force-reinstall . -C cmake.define.LUCE_SANITIZE=ON -C build-dir=$(SANITIZED)/build
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	UBSAN_OPTIONS=print_stacktrace=1 $(SANITIZED)/bin/python -m pytest \
	tests/test_native.py tests/test_linear_native.py tests/test_lbfgs.py tests/test_preconditioner.py tests/test_arrays.py tests/test_laws.py tests/test_cross_entropy.py tests/test_family_vectors.py tests/test_gate_fuzz.py

lint: setup-dev  ## Check style, types and documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror native/*
	$(BIN)/python docs/check.py

format: setup-dev  ## Bring the style into order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i native/*

bench: setup-dev  ## Run one benchmark: make bench NAME=pictures
	$(BIN)/python bench/$(or $(NAME),$(error say which: make bench NAME=pictures)).py

docs: setup-dev  ## Write the generated documents
	$(BIN)/python docs/check.py --write

clean:  ## Remove everything that was built
	rm -rf $(VENV) build demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
