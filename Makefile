# Every target explains itself: `make help`. The same targets run locally, in pre-commit and in CI.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{sub(/:.*/, "", $$1); printf "  \033[36m%-8s\033[0m %s\n", $$1, $$2}'

.PHONY: demo
demo: setup ## Train on the packaged table, register the model, serve it and ask for one price
	@$(BIN)/housing demo

.PHONY: up
up: setup ## Start MLflow, the Dagster UI and daemon, and the API
	@$(BIN)/housing up

.PHONY: down
down: setup ## Stop what `make up` started
	@$(BIN)/housing down

.PHONY: serve
serve: setup ## Run the prediction service alone, on PORT
	@$(BIN)/housing serve

.PHONY: setup
setup: $(VENV)/.installed ## Create the virtual environment from the hashed lock

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: run make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) (a few minutes, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: test
test: setup ## Run the tests with branch coverage, on all processors
	@$(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90

.PHONY: check
check: setup ## Lint, format, strict types, import contracts, and that Dagster can load the graph
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -W ignore -m dagster definitions validate -w workspace.yaml --log-level warning && echo "Dagster loads the graph"

.PHONY: bench
bench: setup ## Measure training and the service next to named peers, as ratios
	@$(BIN)/python -m benchmarks

.PHONY: docs
docs: setup ## Build the documentation into site/, with no network; a broken link ends the build
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean && echo "Open site/index.html"

.PHONY: format
format: setup ## Format the code and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: lock
lock: setup ## Re-resolve requirements.lock for Python 3.11 to 3.13 (hashed, no hosts)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --upgrade --quiet -o requirements.lock
