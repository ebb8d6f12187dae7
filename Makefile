# Every target makes what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
.PHONY: help install demo test test-fast test-slurm check format hooks clean

help: ## list of the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## .venv with vmat in it (about 75 s, 2.6 GB)

$(STAMP): pyproject.toml .constraints.txt
	@echo "== 1/3 a virtual environment in $(VENV)"
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python %d.%d: lightning_vmat needs 3.11 or later" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@echo "== 2/3 torch, the version in .constraints.txt"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint .constraints.txt torch
	@echo "== 3/3 vmat and everything it uses"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .constraints.txt --editable '.[dev,checks]'
	@touch $@
	@echo "== done: $(BIN)/vmat --help"

demo: export WANDB_MODE := offline
demo: install ## the whole experiment in miniature -> runs/demo/report.html (about 15 minutes)
	@echo "== 1/6 phantoms, and a reference plan for each"
	$(BIN)/vmat prepare phantom --out runs/demo/cohort --count 24 --size demo --plan true
	@echo "== 2/6 teacher: a diffusion model of fluence maps"
	$(BIN)/vmat fit --config configs/teacher.yaml --config configs/demo/teacher.yaml
	@echo "== 3/6 distillation: a generator that needs one step"
	$(BIN)/vmat fit --config configs/distillation.yaml --config configs/demo/distillation.yaml
	@echo "== 4/6 learned optimizer"
	$(BIN)/vmat fit --config configs/learned_optimizer.yaml --config configs/demo/learned_optimizer.yaml
	@echo "== 5/6 the held-out cases"
	$(BIN)/vmat test --config runs/demo/distillation/config.yaml --ckpt_path runs/demo/distillation/checkpoints/best.ckpt
	$(BIN)/vmat test --config runs/demo/learned_optimizer/config.yaml --ckpt_path runs/demo/learned_optimizer/checkpoints/best.ckpt
	$(BIN)/vmat benchmark planners --cohort runs/demo/cohort --voxels 3000 --json runs/demo/benchmark.json --planners '[reference,conventional,generator=runs/demo/distillation,learned=runs/demo/learned_optimizer]'
	@echo "== 6/6 one held-out patient"
	$(BIN)/vmat plan runs/demo/cohort/phantom_0023 --planner learned --run runs/demo/learned_optimizer --overwrite true --out runs/demo/plan
	cp runs/demo/plan/report.html runs/demo/report.html
	@echo "== open runs/demo/report.html"

test: install ## every test, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: install ## the tests that take no more than a few seconds each
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-slurm: install ## jobs of configs/slurm on a Slurm of its own (root; installs Debian's slurmctld slurmd slurm-client munge)
	command -v slurmctld slurmd sbatch munged >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurmctld slurmd slurm-client munge; }
	$(BIN)/python -m pytest -m slurm

check: install ## format, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## rewrite the code as `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

hooks: install ## run the checks before each commit
	$(BIN)/pre-commit install

clean: ## remove the environment and the caches, keep runs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
