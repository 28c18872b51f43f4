# Needs Python 3.10 or newer and make. Everything goes into .venv; `make clean` leaves it alone.
# To change: make demo PYTHON=python3.12
PYTHON = python3
TORCH_CPU = torch==2.13.0
TORCH_CPU_INDEX = https://download.pytorch.org/whl/cpu
# Of train-embedded: CPU threads, and minutes until it stops by itself.
THREADS = 1
MINUTES =

VENV := .venv
BIN := $(VENV)/bin
export NO_MKDOCS_2_WARNING = 1
# Threads that wait give up their core: on a busy machine the small networks are many times quicker so.
export OMP_WAIT_POLICY ?= PASSIVE
# Tests run in one process a core; each computes on one thread.
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo style check test test-slow soak docs train-embedded clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed  ## install what is missing, then make first videos, side by side and judged
	$(BIN)/python examples/demo.py

style: $(VENV)/.installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports

check: style  ## format, lint, types, architecture, unit tests: before every commit (under 3 minutes)
	$(PYTEST) -m "not slow and not integration"

test: style  ## all of it, and docs, examples, commands: what CI runs (under 12 minutes)
	$(BIN)/mkdocs build --strict
	$(PYTEST)

test-slow: $(VENV)/.installed-dev  ## the tests that take minutes
	$(PYTEST) -m slow

soak: $(VENV)/.installed-dev  ## ten thousand hostile cases; SOAK_SEED=N for others
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -s tests/hostile

docs: $(VENV)/.installed-dev  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

train-embedded: $(VENV)/.installed-dev  ## go on training the embedded models, at low priority, until Ctrl-C
	$(BIN)/animagic train --queue recipes/queue.yaml --threads $(THREADS) $(if $(MINUTES),--minutes $(MINUTES))

clean:  ## remove what the other targets made, but .venv and runs/
	rm -rf out site dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +

# A stamp is remade when pyproject.toml is newer. PyTorch comes first: left to the other packages, pip would
# choose the newest release, on Linux with gigabytes of CUDA that a machine without a GPU has no use for.
$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is too old or missing: give Python 3.10 or newer, make PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then \
		echo "PyTorch is there already."; \
	elif [ "$$(uname -s)" != Linux ] || nvidia-smi >/dev/null 2>&1; then \
		echo "Installing PyTorch ..."; \
		$(PIP) install -q torch; \
	else \
		echo "Installing PyTorch for the CPU (no NVIDIA GPU was found) ..."; \
		$(PIP) install -q --retries 1 --timeout 30 --index-url $(TORCH_CPU_INDEX) "$(TORCH_CPU)" 2>/dev/null || \
			$(PIP) install -q "$(TORCH_CPU)"; \
	fi
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.torch
	@echo "Installing animagic ..."
	@$(PIP) install -q -e '.[eval]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.torch
	@echo "Installing animagic and its tools ..."
	@$(PIP) install -q -e '.[dev]'
	@touch $@ $(VENV)/.installed
