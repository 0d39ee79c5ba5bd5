# The verbs of the project. `make repro` and `make test` set themselves up.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
STAMP := $(VENV)/.installed
PROFILE ?= tiny
PYTEST_ARGS ?=
SEEDS ?= 11 12 13 14 15
ARMS ?= full no_smsa no_gduf no_diga alone
JOBS ?= 1

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0
export DVC_NO_ANALYTICS := 1
export HF_HUB_OFFLINE := 1

.PHONY: help setup repro smoke claims leave-one-out results test test-fast check lint type ui use cluster-up cluster-job cluster-down clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make the virtual environment (once)

# Stamped: runs again only where the dependencies changed. torch first, since uv then finds it there.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing (Debian: apt install python3.11 python3.11-venv)"; exit 1; }
	[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 uv
	$(VENV)/bin/uv pip install --quiet -p $(VENV) -c constraints.txt -e '.[dev]'
	@touch $@

repro: $(STAMP) ## run the experiment in params.yaml: every stage that is not up to date
	@python -m pipeline.params params.yaml
	dvc repro
	@python -m pipeline.summary

smoke: $(STAMP) ## run the same stages in miniature, in a scratch copy of the workspace
	python -m pipeline.smoke

claims: $(STAMP) ## ablations into docs/results/: make claims SEEDS="11 12" ARMS="full no_diga" JOBS=2 PROFILE=tiny
	python -m pipeline.claims run --profile $(PROFILE) --seeds $(SEEDS) --arms $(ARMS) --jobs $(JOBS)

leave-one-out: $(STAMP) ## each forgery family that can be, in turn the only test family
	python -m pipeline.claims leave-one-out --profile $(PROFILE) --seeds $(SEEDS) --jobs $(JOBS)

results: $(STAMP) ## make docs/results.md from docs/results/ alone
	python -m pipeline.claims report

test: $(STAMP) ## run all tests
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: $(STAMP) ## run the tests that take seconds
	python -m pytest -m "not slow and not gpu" $(PYTEST_ARGS)

check: lint type ## lint, types, profiles

lint: $(STAMP)
	ruff check .
	@for profile in profiles/*.yaml; do python -m pipeline.params $$profile; done

type: $(STAMP)
	mypy

ui: $(STAMP) ## open the tracked runs at http://127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --host 127.0.0.1 --port 5000 --workers 1

use: $(STAMP) ## put another profile in params.yaml's place: make use PROFILE=smoke
	@python -m pipeline.profiles $(PROFILE)

cluster-up: $(STAMP) ## start a local Ray cluster by hand
	python -m pipeline.local_cluster up

cluster-job: $(STAMP) ## run `dvc repro` as a job of that cluster
	python -m pipeline.local_cluster job

cluster-down: $(STAMP) ## stop that cluster
	python -m pipeline.local_cluster down

clean: ## delete saved state of interrupted stages, not while one runs, and tool caches; claims and outs stay
	rm -rf $(filter-out runs/claims/,$(wildcard runs/*/)) .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
