# make demo    set everything up and run the whole system on simulated cells
# make test    set everything up and run the tests
# make check   types, style, layers
# make package build wheel and sdist, and try them and the editable install outside the tree
# make validate compare with what other programs give, and run those of the real instruments

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check package setup clean validate

demo: $(VENV)/.ready
	@$(BIN)/labctl demo

test: $(VENV)/.ready-dev
	@.ci/servers
	@$(BIN)/pytest --numprocesses 2 --dist loadfile

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

# make validate: what others' programs give, each in an environment of its own
# make validate-cells, validate-instruments ONLY="qcodes ..."     a part of it
VALIDATE := .venv-validate
ONLY ?=
.PHONY: validate-cells validate-instruments
validate: validate-cells validate-instruments

validate-cells: $(VENV)/.ready-dev $(VALIDATE)/.ready
	@$(BIN)/python benchmarks/validate/compare_with_pybamm.py $(VALIDATE)/bin/python

validate-instruments: $(VENV)/.ready-dev
	@$(BIN)/python benchmarks/validate/instruments/run.py $(ONLY)

$(VALIDATE)/.ready: benchmarks/validate/requirements.txt
	@echo "setting up $(VALIDATE) with PyBaMM (some minutes)"
	@$(PYTHON) -m venv $(VALIDATE)
	@$(VALIDATE)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
