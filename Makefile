# Two commands for a newcomer: `make quickstart` shows it at work, `make test` checks it.
#
# Both make .venv when there is none, and install into it again only when pyproject.toml or constraints.txt has changed.
# The checkout is installed editable: what you change is what runs. Settings, as in `make test PYTHON=python3.12`:
#
#   PYTHON     which Python (3.11 or newer) makes .venv; without it, the first that is found
#   PIP_ARGS   more arguments for pip install, such as an index with the CPU build of torch (see constraints.txt)
#   RUN_ARGS   more arguments for the quickstart, such as --quiet
#   TEST_ARGS  more arguments for pytest, such as -k export; coverage is of all tests, and not counted with them
#   SEED, FULL, ONLY   of `make torture`: which sample, FULL=1 for the whole list, ONLY=papers or ONLY=papers:17

VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
RUN_ARGS ?=
TEST_ARGS ?=
SEED ?= 1
FULL ?=
ONLY ?=
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	"$$name" -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo "$$name" && break; done)
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

# Two processes with one thread each: on a few cores, more threads than that wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=15

# Coverage costs least through sys.monitoring, which Python has since 3.12.
COVERED = COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
	$(PYTEST) $(1) $(or $(TEST_ARGS),--cov --cov-report=)
LEAST_COVERED = @$(if $(TEST_ARGS),,echo "the ten least covered files:"; \
	$(BIN)/coverage report --sort=cover --fail-under=0 | sed -n '1p;3,12p')

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-fast matrix torture gate lint docs format clean

help: ## show these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

quickstart: $(VENV)/.ready-to-run ## halve, export, quantize and measure a real sentence encoder; write an HTML report
	$(BIN)/bertshrink run quickstart $(RUN_ARGS)

test: lint docs ## every check, and every test; of families, tasks and techniques every pair; coverage
	$(call COVERED)
	$(LEAST_COVERED)

test-fast: $(VENV)/.ready-to-develop ## about two minutes: the tests that train nothing and start no process
	$(PYTEST) --fast $(TEST_ARGS)

matrix: lint docs ## what `make test` runs and the whole matrix, in environments of other libraries too; CI runs this
	$(call COVERED,--matrix)
	$(LEAST_COVERED)

torture: $(VENV)/.ready-to-develop ## spoil files, fill disks, kill processes: a sample in a quarter of an hour; FULL=1 for all
	$(BIN)/python -m tests.torture --seed $(SEED) $(if $(FULL),--full) $(if $(ONLY),--only "$(ONLY)")

gate: $(VENV)/.ready-to-run ## judge what bertshrink makes by its own limits and baseline (pyproject.toml, bertshrink.lock.json)
	OMP_NUM_THREADS=2 $(BIN)/bertshrink run .ci/gate.yaml --quiet > /dev/null
	$(BIN)/bertshrink gate --strict

lint: $(VENV)/.ready-to-develop ## style, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.ready-to-develop ## the documentation as a site, in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.ready-to-develop ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove .venv, builds and caches; results in runs/ stay
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .coverage* .ruff_cache .import_linter_cache
	find bertshrink tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready-to-run: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) -e '.[ml,demo]'
	@touch $@

$(VENV)/.ready-to-develop: $(VENV)/.made pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.ready-to-run

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "error: bertshrink needs Python 3.11 or newer, and none was found"; \
		echo "hint: install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; } >&2
	@"$(PYTHON)" -c '$(IS_NEW_ENOUGH)' || { echo "error: \`$(PYTHON)\` is no Python 3.11 or newer"; \
		echo "hint: name another: make PYTHON=/path/to/python3.12"; exit 1; } >&2
	@$(BIN)/python -c 'import pip; $(IS_NEW_ENOUGH)' 2>/dev/null \
		|| { echo "making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1; } \
		|| "$(PYTHON)" -m virtualenv -q $(VENV) 2>/dev/null \
		|| uv venv -q --seed --allow-existing --python "$(PYTHON)" $(VENV) 2>/dev/null \
		|| { echo "error: \`$(PYTHON)\` cannot make a virtual environment"; \
		echo "hint: on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; } >&2
	@touch $@
