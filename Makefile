# Everything a developer needs; `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Tests wait for processes a good deal. Those of the cluster share one, and the one operator in it.
SIDE_BY_SIDE := --numprocesses 2
CODE   := core operator controller_service learner_image benchmarks tests examples hack/_cluster hack/cluster hack/images hack/requirements hack/manifests hack/dashboards hack/chart-readme hack/api-docs

.DEFAULT_GOAL := help
.PHONY: help venv run test test-full lint format unit integration charts browser e2e images cluster-up cluster-down protos crd generate bench bench-compare bench-report clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY) ## Create .venv with everything that run and test need

# torch goes first and by its exact version: left to a range, pip takes a build with gigabytes of CUDA libraries.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 venv")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing the pinned packages, a minute or two …"
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(READY)

run: $(READY) ## Train the digits federation on this machine
	$(BIN)/metisfl run examples/digits/federation.yaml

test: $(READY) lint ## Lint, unit, integration, chart, browser and cluster tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow" tests/unit tests/integration tests/charts tests/browser
	$(BIN)/python -m pytest -m "not slow" tests/cluster

test-full: $(READY) lint ## The same with the long tests
	$(BIN)/python -m pytest tests

lint: $(READY) ## ruff, mypy, import rules
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format the code
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

unit: $(READY) ## Unit tests only
	$(BIN)/python -m pytest -m "not slow" tests/unit

integration: $(READY) ## Real processes on loopback
	$(BIN)/python -m pytest -m "not slow" tests/integration

charts: $(READY) ## The Helm chart and the plain manifests
	$(BIN)/python -m pytest tests/charts

browser: $(READY) ## The report in a real browser
	$(BIN)/python -m pytest tests/browser

e2e: $(READY) ## Real pods: METISFL_TEST_KUBECONFIG's cluster, or hack/cluster
	$(BIN)/python -m pytest -m "not slow" tests/cluster

images: ## Build the three images with docker or buildah
	hack/images

cluster-up: ## Start a single-node Kubernetes from Debian packages (root, no Docker)
	hack/cluster up

cluster-down: ## Stop it
	hack/cluster down

protos: $(READY) ## Generate the protobuf stubs
	hack/protos

bench: $(READY) ## Measure everything in docs/benchmarks.md (long; nothing else may run)
	$(BIN)/python -m benchmarks.suite; status=$$?; $(BIN)/python -m benchmarks.report; exit $$status

bench-compare: $(READY) ## Compare with Flower and NVIDIA FLARE, from PyPI
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.report

bench-report: $(READY) ## Write docs/benchmarks.md and its plots from benchmarks/results
	$(BIN)/python -m benchmarks.report

crd: $(READY) ## Write the CRD into manifests and chart
	hack/crd

generate: $(READY) protos crd ## Write every generated file: stubs, CRD, docs/api.md, manifests, dashboards, the charts' pages
	$(BIN)/python hack/dashboards
	$(BIN)/python hack/manifests
	$(BIN)/python hack/chart-readme

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
