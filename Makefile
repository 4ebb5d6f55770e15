# make demo    set everything up and run the whole system on simulated cells
# make test    set everything up and run the tests
# make check   types, style, layers
# make package build wheel and sdist, and try them and the editable install outside the tree

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check package setup clean

demo: $(VENV)/.ready
	@$(BIN)/labctl demo

test: $(VENV)/.ready-dev
	@.ci/servers
	@$(BIN)/pytest

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pyright

package: $(VENV)/.ready-dev
	.ci/package $(BIN)/python

setup: $(VENV)/.ready-dev

$(VENV)/.ready: pyproject.toml constraints.txt
	@.ci/setup "$(PYTHON)" $(VENV) all
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt
	@.ci/setup "$(PYTHON)" $(VENV) all,dev
	@touch $@ $(VENV)/.ready

clean:
	rm -rf $(VENV) build dist *.egg-info demo
