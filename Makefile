# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-all check audit format clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing the pinned dependencies into $(VENV): some 2.3 GB with torch, a few minutes; once"
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,onnx]'
	@touch $@

install: $(INSTALLED)  ## make .venv and install pinned dependencies

quickstart: $(INSTALLED)  ## vocabulary, rows, pre-training, export and a picture, on Python's own documentation
	$(RUN)/spanelectra quickstart --out_dir quickstart --overwrite

test: $(INSTALLED)  ## the default tests: offline, under five minutes on two cores
	OMP_NUM_THREADS=1 $(RUN)/pytest -q -n 2

test-all: $(INSTALLED)  ## all tests, the slow ones too
	OMP_NUM_THREADS=1 $(RUN)/pytest -q -n 2 -m 'slow or not slow'

check: $(INSTALLED)  ## ruff and mypy
	$(RUN)/ruff check src tests benchmarks
	$(RUN)/ruff format --check src tests benchmarks
	$(RUN)/mypy

audit: $(INSTALLED)  ## known vulnerabilities of the pinned versions; asks a database on the net
	$(RUN)/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

format: $(INSTALLED)  ## let ruff format and fix
	$(RUN)/ruff check --fix src tests benchmarks
	$(RUN)/ruff format src tests benchmarks

clean:  ## remove what quickstart and the tests leave
	rm -rf quickstart .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
