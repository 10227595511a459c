# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A device without a network: what `make wheelhouse` collects, for which Python and which machine.
DEVICE_PYTHON ?= 311
DEVICE_PLATFORM ?= $(shell uname -m)
DEVICE_EXTRAS ?= watch
# Test files that run at a time.
WORKERS ?= 2
# What takes longest begins first.
TESTS := tests/fuzz tests/export tests/device tests/test_hazards.py
# For each of the ways in that `make fuzz` tries with mutated files, and what it begins with.
SECONDS ?= 600
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit fuzz wheel wheelhouse clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## train, export, verify and infer on synthetic radiographs, into demo/
	rm -rf demo
	$(BIN)/medimg-edge demo --out demo

test: lint unit  ## everything: ruff, pyright, import contracts, pytest

lint: $(READY)  ## ruff, pyright, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

unit: $(READY)  ## the tests; those on real images need MEDIMG_EDGE_DATA
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  -m 'not alone' $(TESTS)
	$(BIN)/python -m pytest -m alone

fuzz: $(READY)  ## mutated files into every way in, for SECONDS each
	FUZZ_SECONDS=$(SECONDS) FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -m fuzz tests/fuzz

wheel: $(READY)  ## build the wheel, into dist/
	$(BIN)/python -m build --wheel --outdir dist .

wheelhouse: wheel  ## all that a device without a network needs, into wheelhouse/
	rm -rf wheelhouse
	$(BIN)/python -m pip download --quiet --dest wheelhouse --constraint constraints.txt \
	  --only-binary=:all: --python-version $(DEVICE_PYTHON) \
	  --platform manylinux_2_28_$(DEVICE_PLATFORM) --platform manylinux_2_27_$(DEVICE_PLATFORM) \
	  --platform manylinux_2_17_$(DEVICE_PLATFORM) --platform manylinux2014_$(DEVICE_PLATFORM) \
	  "$$(ls -t dist/medimg_edge-*.whl | head -1)[$(DEVICE_EXTRAS)]"
	@echo "On the device: pip install --no-index --find-links wheelhouse medimg-edge"

clean:  ## remove what was built; runs/ and bundles stay
	rm -rf $(VENV) demo dist build wheelhouse
