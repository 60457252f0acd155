# `make help` explains every target. Each sets up .venv when it is missing or older than what it is made from.

PYTHON ?= python3
PIP_FLAGS ?=
RUN ?= runs/miniature
MODEL ?=
DATA ?=
DRY_RUN ?=
BITFRONT := .venv/bin/bitfront
# A thread each: two processes of several threads would wait for each other more than they compute.
TWO_PROCESSES := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help setup search overnight test test-fast test-slow check format bench clean
.DEFAULT_GOAL := help

help: ## explain the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  PIP_FLAGS=  flags for pip; without them Linux with no NVIDIA device gets torch's CPU build"
	@echo "  MODEL= DATA=  local directories for overnight, in place of the hub"
	@echo "  DRY_RUN=1  overnight only says what it would do in which time"

setup: .venv/ready ## make .venv with everything that is needed

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bitfront needs Python 3.11 or newer; name one with PYTHON=")'
	$(PYTHON) -m venv .venv
	flags=$$(.venv/bin/python tools/torch_build.py $(PIP_FLAGS)) && \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) $$flags -c constraints.txt -e '.[dev]'
	@touch $@

search: .venv/ready ## search the embedded default: offline, minutes
	$(BITFRONT) search --profile miniature --run $(RUN)

overnight: .venv/ready ## search bert-base-uncased on CoLA and distil the picks, in eight hours
	$(BITFRONT) search --profile cola --hours 8 --distill weights --run runs/overnight $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data $(DATA)) $(if $(DRY_RUN),--dry-run)

test: .venv/ready ## run the tests but the long ones: offline, minutes
	$(TWO_PROCESSES)

test-fast: .venv/ready ## run the unit tests alone: a minute
	$(TWO_PROCESSES) -m 'not slow and not end_to_end'

test-slow: .venv/ready ## run the long tests, which `make test` leaves out
	$(TWO_PROCESSES) -m slow

check: .venv/ready ## lint, format and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: .venv/ready ## format, and mend what the linter can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: .venv/ready ## run every benchmark (NAME= for one)
	.venv/bin/python -m tests.benchmarks $(NAME)

clean: ## remove .venv, caches and build output; runs and the user's cache of codes stay
	rm -rf .venv .cache build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "kept: runs/, and codes and sensitivities in the user's cache (bitfront cache lists them)"
