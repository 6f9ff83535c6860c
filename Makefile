# Headgate's commands for people and for CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3.11
MANAGE := $(BIN)/python manage.py
SOURCES := ingest_project ingestion connectors sinks sample benchmarks tests manage.py
TYPED := ingestion/ports ingestion/toolkit ingestion/quality ingestion/ratelimit ingestion/runs connectors sinks ingest_project benchmarks
OPTIONS := $(if $(DATA),--data $(DATA)) $(if $(PORT),--port $(PORT))
UP_OPTIONS := $(OPTIONS) $(if $(DRUID),--with-druid)

PARALLEL := -n 3 --dist loadscope # many tests wait for processes more than they compute

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'
	echo "  DATA=folder and PORT=number choose where run, up and down work; DRUID=1 gives run and up a Druid (Java 17, Maven)."

.PHONY: run
run: install ## Install, start everything, load the bundled sample and show where to look
	@$(MANAGE) up --detach $(UP_OPTIONS)
	$(MANAGE) load_sample $(OPTIONS)
	$(MANAGE) where $(OPTIONS)

.PHONY: up
up: install ## Start everything in this terminal; Ctrl-C stops it
	@exec $(MANAGE) up $(UP_OPTIONS)

.PHONY: down
down: ## Stop what `make run` or `make up` started
	@test -x $(BIN)/python || { echo "Nothing is installed here, so nothing runs."; exit 0; }
	$(MANAGE) down $(OPTIONS)

.PHONY: test
test: install-dev ## The tests on SQLite, then those that touch the database on PostgreSQL
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not slow and not druid and (not faults or choice)"
	if $(BIN)/python -c "import sys; from tests.servers import find_postgres; sys.exit(not find_postgres())"; then
		echo "Once more on PostgreSQL, what touches the database:"
		$(BIN)/python -m pytest -q $(PARALLEL) -m "choice or (database and not slow and not faults and not worker and not druid)" --database postgres --ignore tests/admin --ignore tests/management
	elif [ "$${REQUIRE_ALL:-}" = 1 ]; then
		echo "PostgreSQL is not installed, so the tests were not run on it." >&2
		exit 1
	else
		echo "PostgreSQL is not installed here, so the tests ran on SQLite alone."
	fi

.PHONY: slow
slow: install-dev ## The tests that `make test` leaves out because they take long
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "slow and not faults and not druid"
	if $(BIN)/python -c "import sys; from tests.servers import find_postgres; sys.exit(not find_postgres())"; then
		echo "The pages and commands once more on PostgreSQL:"
		$(BIN)/python -m pytest -q $(PARALLEL) -m "database and not slow and not worker" --database postgres tests/admin tests/management
	fi

.PHONY: faults
faults: install-dev ## Kill processes and servers at every boundary and count the rows
	@$(BIN)/python -m pytest -q -m faults tests/faults
	$(BIN)/python -m pytest -q -m faults tests/faults --database postgres -k "not 100"

.PHONY: test-druid
test-druid: install-dev ## The tests against a real Druid (needs Java 17 and Maven, and 2 GB of memory)
	@$(BIN)/python -m pytest -q -m druid

.PHONY: bench
bench: install-dev ## Measure, as ratios in one run
	@$(BIN)/python -m benchmarks

.PHONY: check
check: install-dev ## Format, lint, types, import contracts, settings, migrations, dependencies
	@data=$$(mktemp -d); trap 'rm -rf "$$data"' EXIT
	export HEADGATE_DATA="$$data"
	step() { echo "--- $$*"; "$$@"; }
	step $(BIN)/ruff format --check $(SOURCES)
	step $(BIN)/ruff check $(SOURCES)
	step $(BIN)/mypy --strict $(TYPED)
	step $(BIN)/lint-imports
	step env HEADGATE_ENV=production HEADGATE_ALLOWED_HOSTS=headgate.example.org \
		DATABASE_URL=postgres://headgate@database/headgate BROKER_URL=redis://broker:6379/0 \
		HEADGATE_LAKE_URL='s3://headgate/lake?endpoint=http://store:7070' \
		$(MANAGE) check --deploy --fail-level WARNING
	step $(MANAGE) makemigrations --check --dry-run
	step $(BIN)/deptry .

.PHONY: format
format: install-dev ## Format the code and mend what the linter can mend
	@$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: clean
clean: ## Remove caches and the environment; the data stay
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment: made once, touched again only when a list of packages changes

.PHONY: install install-dev
install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	@if command -v uv >/dev/null; then
		uv venv --quiet --python 3.11 $(VENV)
	elif ! command -v $(PYTHON) >/dev/null; then
		echo "Python 3.11 is missing: install python3.11 (Debian: apt install python3 python3-venv) or uv, then try again." >&2
		exit 1
	elif ! $(PYTHON) -c "import ensurepip, venv" 2>/dev/null; then
		echo "Python's venv module is missing: install it (Debian: apt install python3.11-venv) or uv, then try again." >&2
		exit 1
	else
		$(PYTHON) -m venv $(VENV)
	fi

define install
	@echo "Installing $(1) into $(VENV) ..."
	if command -v uv >/dev/null; then
		VIRTUAL_ENV=$(VENV) uv pip install --quiet -r $(1)
	else
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(1)
	fi
	touch $@
endef

$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(call install,requirements.txt)

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt | $(BIN)/python
	$(call install,requirements-dev.txt)
	touch $(VENV)/.installed
