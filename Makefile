# Every target explains itself: `make help`. The same targets run locally, in pre-commit and in CI.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{sub(/:.*/, "", $$1); printf "  \033[36m%-13s\033[0m %s\n", $$1, $$2}'

.PHONY: demo
demo: setup ## Train on the packaged table, register the model, serve it and ask for one price
	@$(BIN)/housing demo

.PHONY: up
up: setup ## Start MLflow, the Dagster UI and daemon, the API, and the web app
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

.PHONY: secrets
SECRETS ?= deploy/secrets
secrets: ## Make the passwords that compose.yaml reads, once
	@deploy/compose/make-secrets $(SECRETS)

LOCK := pip compile --universal --generate-hashes --no-header --no-annotate --quiet
# Everything in an image has the version that the tests ran with.
IMAGE_LOCK := $(LOCK) --python-version 3.13 --constraint requirements.lock

.PHONY: lock
lock: setup ## Re-resolve requirements.lock and the locks of the images (hashed, no hosts)
	@$(BIN)/uv $(LOCK) --python-version 3.11 --upgrade pyproject.toml --extra dev -o requirements.lock
	@$(MAKE) --no-print-directory image-locks

.PHONY: image-locks
image-locks: setup
	@rm -f deploy/requirements/*.lock
	@$(BIN)/uv $(IMAGE_LOCK) pyproject.toml --extra pipeline --extra postgres --extra k8s --extra scale \
	  -o deploy/requirements/assets.lock
	@$(BIN)/uv $(IMAGE_LOCK) pyproject.toml --extra serving -o deploy/requirements/serving.lock
	@$(BIN)/uv $(IMAGE_LOCK) pyproject.toml --extra webapp -o deploy/requirements/webapp.lock
	@echo hatchling | $(BIN)/uv $(IMAGE_LOCK) - -o deploy/requirements/build.lock

.PHONY: sbom
sbom: setup ## Write what each image is made of to build/sbom/ (CycloneDX)
	@mkdir -p build/sbom
	@for image in assets serving webapp; do \
	  $(BIN)/cyclonedx-py requirements deploy/requirements/$$image.lock --pyproject pyproject.toml \
	    --output-reproducible -o build/sbom/$$image.cdx.json && echo build/sbom/$$image.cdx.json || exit 1; \
	done

# Values of the targets below come from the environment and stay there, so that no shell reads them as code.
export IMAGE TAG REGISTRY REASON
.PHONY: image
image: ## Build one image: IMAGE=assets, serving or webapp, TAG=its tag
	@docker build --target "$${IMAGE:?}" --tag "housing-$$IMAGE:$${TAG:?}" \
	  --build-arg "GIT_COMMIT=$$(git rev-parse HEAD)" .

.PHONY: push
push: ## Push IMAGE with TAG to REGISTRY, signed in by REGISTRY_TOKEN
	@printf %s "$${REGISTRY_TOKEN:?}" | \
	  docker login --username oauth2accesstoken --password-stdin "https://$${REGISTRY%%/*}"
	@docker tag "housing-$${IMAGE:?}:$${TAG:?}" "$${REGISTRY:?}/$$IMAGE:$$TAG"
	@docker push "$$REGISTRY/$$IMAGE:$$TAG"

.PHONY: train
train: setup ## Train on the newest snapshot and register a version
	@$(BIN)/housing train

.PHONY: deploy
deploy: setup ## Try the newest version that has won out, then promote it or take it back
	@$(BIN)/housing release deploy $${GITHUB_OUTPUT:+--outputs "$$GITHUB_OUTPUT"}

.PHONY: check-release
check-release: setup ## Ask the service for a price; fail unless the released version answers
	@$(BIN)/housing release check

.PHONY: rollback
rollback: setup ## Let the version before serve again, for a REASON
	@$(BIN)/housing release rollback --reason "$${REASON:?}"

.PHONY: monitor
monitor: setup ## Look at what was served yesterday
	@$(BIN)/housing monitor

.PHONY: alerts
alerts: setup ## Open and close alerts as the newest reports say; fail while a critical one is open
	@$(BIN)/housing alerts watch

.PHONY: lint-shipping
lint-shipping: lint-image lint-compose lint-workflows lint-scripts ## Lint images, Compose file, workflows and scripts

.PHONY: lint-image lint-compose lint-workflows lint-scripts
lint-image: setup
	@$(BIN)/hadolint Dockerfile
lint-compose: setup
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
lint-workflows: setup
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/actionlint
	@$(BIN)/zizmor --offline --quiet --persona=auditor .github
lint-scripts: setup
	@$(BIN)/shellcheck deploy/compose/make-secrets .ci/run .ci/install-programs

# In tests, only what has the form of a key: passwords that are none abound there.
FORMS := --disable-plugin KeywordDetector --disable-plugin BasicAuthDetector \
  --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString
TEXTS := ':!*.lock' ':!*.png' ':!*.csv'
.PHONY: scan-secrets
scan-secrets: setup ## Fail when a file under version control holds what looks like a secret
	@git ls-files -z -- $(TEXTS) ':!housing_assets_tests' | xargs -0 $(BIN)/detect-secrets-hook
	@git ls-files -z -- $(TEXTS) housing_assets_tests | xargs -0 $(BIN)/detect-secrets-hook $(FORMS)

# Such as another service to ask: --vulnerability-service osv --osv-url https://osv.internal/v1/query
AUDIT_OPTIONS :=
.PHONY: audit
audit: setup ## Fail when a locked dependency has a known vulnerability
	@for lock in requirements.lock deploy/requirements/*.lock; do \
	  $(BIN)/pip-audit --disable-pip --require-hashes $(AUDIT_OPTIONS) -r $$lock || exit 1; \
	done
