# The tasks of the repository. Needs Python >= 3.11 and make: everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
TESTS_AT_ONCE ?= 2
NAMESPACE := build/namespace/birc

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: demo test conformance bench bench-schedule lint docs clean help

demo: $(VENV)/installed ## compile and run a small model, from ONNX to values and cycles
	$(RUN) examples/demo.py

test: $(VENV)/installed-test ## run the tests (the slow ones: .venv/bin/pytest -m slow)
	$(RUN) -m pytest -m "not slow" -n $(TESTS_AT_ONCE)

conformance: $(VENV)/installed-test ## run all of onnx's backend cases in all forms; rewrite their results
	$(RUN) tests/conformance/conformance.py -j $(TESTS_AT_ONCE)

bench: $(VENV)/installed-bench ## measure compile time, simulation speed and predicted latency
	$(RUN) benchmarks/bench.py

bench-schedule: $(VENV)/installed-bench ## compare the schedules of networks at full size with the bounds of the machine
	$(RUN) benchmarks/schedule.py

lint: $(VENV)/installed-lint $(NAMESPACE) ## check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/installed ## regenerate the documents that are made from the tables
	$(RUN) docs/generate.py

clean: ## remove everything that make made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(RUN):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "birc needs Python >= 3.11: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# One stamp for the project alone, one for each extra; all renewed when the dependencies change.
$(VENV)/installed: pyproject.toml $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-%: pyproject.toml $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	touch $@

# mypy reads files, not import hooks: show it the namespace as a folder of links.
$(NAMESPACE):
	mkdir -p $@
	for folder in cli codegen compiler runtime; do ln -sfn ../../../$$folder $@/$$folder; done
