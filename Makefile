# Each target sets up its own .venv when there is none; PYTHON names the interpreter to make it with.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin

.PHONY: demo quick test nightly lint docs clean

demo: $(READY)  ## train two networks on the built-in cohort and compare them
	$(RUN)/pullback demo -o demo

WHOLE := tests/methods tests/study tests/workflows tests/test_cli.py
quick: $(READY)  ## the fast tests of the parts, without whole methods, studies and commands: under two minutes on two cores
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist worksteal -m "not slow and not real and not nightly" $(WHOLE:%=--ignore=%)

test: $(READY)  ## the test suite, as CI runs it
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist worksteal -m "not nightly"

nightly: $(READY)  ## what takes long, and the laws on 200 random examples each
	HYPOTHESIS_PROFILE=nightly OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist worksteal -m "hypothesis or nightly"

lint: $(READY)  ## style, types, floors
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

docs: $(READY)  ## the site of the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --quiet

clean:
	rm -rf $(VENV) demo site

$(READY): pyproject.toml constraints.txt
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt torch
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
