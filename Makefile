# Headgate's commands for people and for CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3.11
MANAGE := $(BIN)/python manage.py
SOURCES := ingest_project ingestion connectors sinks sample benchmarks tests docs/conf.py manage.py
TYPED := ingestion/ports ingestion/toolkit ingestion/quality ingestion/ratelimit ingestion/runs connectors sinks ingest_project benchmarks
OPTIONS := $(if $(DATA),--data $(DATA)) $(if $(PORT),--port $(PORT))
UP_OPTIONS := $(OPTIONS) $(if $(DRUID),--with-druid)

# Many tests wait for processes more than they compute.
PARALLEL := -n 3 --dist loadscope
NOT_LONG := not slow and not faults and not druid and not drill

# By the commit, so that the share of the faults changes; processes of the product know no such variable.
DRILL_SEED := $(or $(HEADGATE_DRILL_SEED),$(shell git rev-parse --short=8 HEAD 2>/dev/null || date -u +%Y%m%d))
unexport HEADGATE_DRILL_SEED

# Once more, with these words for pytest, on PostgreSQL; a machine without it is told so, and CI fails.
define on-postgres
	if $(BIN)/python -c "import sys; from tests.servers import find_postgres; sys.exit(not find_postgres())"; then
		echo "Once more on PostgreSQL:"
		$(BIN)/python -m pytest -q --database postgres $(1)
	elif [ "$${REQUIRE_ALL:-}" = 1 ]; then
		echo "PostgreSQL is not installed, so the tests were not run on it." >&2
		exit 1
	else
		echo "PostgreSQL is not installed here, so the tests ran on SQLite alone."
	fi
endef

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | column -t -s '|'
	echo "  DATA=folder and PORT=number choose where run, up and down work; DRUID=1 gives run and up a Druid (Java 17, Maven)."
	echo "  HEADGATE_DRILL_SEED=text lets faults inject what that seed chooses; without it, the commit is the seed."

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
test: install-dev ## The tests on SQLite, and on PostgreSQL those whose SQL, locks or transactions differ there
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "$(NOT_LONG)"
	$(call on-postgres,$(PARALLEL) -m "both and $(NOT_LONG)" --ignore tests/admin --ignore tests/management)

.PHONY: slow
slow: install-dev ## The tests that `make test` leaves out because they take long
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "slow and not faults and not druid and not drill"
	$(call on-postgres,$(PARALLEL) -m "both and $(NOT_LONG)" tests/admin tests/management)

.PHONY: faults
faults: install-dev ## Kill processes and servers: a seeded twentieth of `make drills`, some of every kind
	@echo "The faults of seed $(DRILL_SEED); HEADGATE_DRILL_SEED=$(DRILL_SEED) make faults repeats them."
	$(BIN)/python -m pytest -q -m faults tests/faults --drill-seed "$(DRILL_SEED)"
	$(call on-postgres,-m faults tests/faults --drill-seed "$(DRILL_SEED)")

.PHONY: drills
drills: install-dev ## Everything that takes long: a kill at every boundary, 100 random ones, random histories (an hour)
	@$(BIN)/python -m pytest -q -m faults tests/faults
	$(BIN)/python -m pytest -q -m drill
	$(call on-postgres,-m faults tests/faults -k "not killed_at_random_points")

.PHONY: test-druid
test-druid: install-dev ## The tests against a real Druid (needs Java 17 and Maven, and 2 GB of memory)
	@$(BIN)/python -m pytest -q -m druid tests/druid

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
	step $(MAKE) --no-print-directory docs

.PHONY: docs
docs: install-dev ## The documents as web pages in docs/_build/html; a link that leads nowhere is an error
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --doctree-dir docs/_build/doctrees docs docs/_build/html
	echo "docs/_build/html/index.html"

.PHONY: format
format: install-dev ## Format the code and repair what the linter can repair
	@$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: clean
clean: ## Remove caches and the environment; the data stay
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis docs/_build
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
