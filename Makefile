# starscape: `make demo` and `make test` set up all they need in .venv; everything else builds on that.
.PHONY: help demo test lab docs bench soak clean
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(BIN)/python
PACKAGING := settings.ini setup.py pyproject.toml
# Each notebook worker, and each test, computes on one thread: threads of several processes on few cores cost 10x.
ONE_THREAD := OMP_NUM_THREADS=1
WORKERS ?= 2
OUT ?= demo
# `make test BROWSER_TESTS=no` leaves out the tests that need a Chromium.
BROWSER_TESTS ?= yes

help:  ## List what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

$(VENV)/.package: $(PACKAGING)
	@tools/make_venv.sh $(VENV)
	$(PYTHON) -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(PACKAGING)
	@tools/make_venv.sh $(VENV)
	$(PYTHON) -m pip install --quiet --editable '.[dev,mnist5k]'
	@touch $(VENV)/.package $@

demo: $(VENV)/.package  ## From digits to a star model: one table, demo/report.html
	$(BIN)/starscape demo --out $(OUT)

test: $(VENV)/.dev  ## Every check and every test, notebooks included
	@BROWSER_TESTS=$(BROWSER_TESTS) tools/find_browser.sh
	$(PYTHON) tools/check_notebooks.py
	$(PYTHON) tools/readme.py --check
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(ONE_THREAD) $(BIN)/nbdev_test --n_workers $(WORKERS) --timing --do_print
	$(ONE_THREAD) BROWSER_TESTS=$(BROWSER_TESTS) $(PYTHON) -m pytest -q --durations=5 tests

lab: $(VENV)/.package  ## JupyterLab, on the notebook that trains a star
	$(BIN)/jupyter lab nbs/03_star_training.ipynb

docs: $(VENV)/.dev  ## Build the site in _docs, and open every page of it in a browser with no network
	@BROWSER_TESTS=$(BROWSER_TESTS) tools/find_browser.sh
	$(PYTHON) docs/build.py
	BROWSER_TESTS=$(BROWSER_TESTS) $(PYTHON) -m pytest -q tests/test_docs.py

BENCHMARK := $(ONE_THREAD) $(PYTHON) benchmarks
bench: $(VENV)/.dev  ## Run the benchmarks that need no other package (the rest say in their first lines what they need)
	$(BENCHMARK)/training.py
	$(BENCHMARK)/sweeps.py
	$(BENCHMARK)/adaptive.py
	$(BENCHMARK)/bma.py build/benchmarks
	$(BENCHMARK)/matching_methods.py build/benchmarks
	$(BENCHMARK)/matching_memory.py
	$(BENCHMARK)/scale.py
	$(BENCHMARK)/panels.py

# what is done to the package on purpose: these print, at the end, what was tried and what was lost
TRUST := tests/test_bad_input.py tests/test_fuzz.py tests/test_kill.py tests/test_faults.py
SOAK := $(ONE_THREAD) $(PYTHON) -m pytest -q -o addopts= --timeout 7200 --hypothesis-profile=soak
soak: $(VENV)/.dev  ## Every test with many more random inputs; then kills, faults, fuzz and bad input in full
	BROWSER_TESTS=$(BROWSER_TESTS) $(SOAK) tests $(TRUST:%=--ignore=%)
	$(SOAK) --tally benchmarks/soak.json $(TRUST)

clean:  ## Remove what was built; trained models and .venv stay
	rm -rf _docs _proc docs/_src jupyter_execute build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
