# `make demo` and `make test` do everything on a machine with Python 3.11 and make.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/ready
LAVA_READY := .lava-venv/ready

.PHONY: help setup lava demo test lint types suite benchmarks benchmarks-conversion benchmarks-training benchmarks-fuzz clean

help:
	@echo "make demo        set up, run the main job on 5,000 real digits, write out/report.html"
	@echo "make test        set up, run lint, types and the whole suite"
	@echo "make benchmarks  set up, time the chips' simulators"
	@echo "make benchmarks-conversion DATA=folder  train a ResNet-20 on CIFAR-10, measure every recipe on it"
	@echo "make benchmarks-training DATA=folder [PEER=python]  time a training step beside snnTorch and Norse (and SpikingJelly)"
	@echo "make benchmarks-fuzz  5,000 damaged files of every format"
	@echo "make lava        set up lava-nc in its own Python 3.10, where one can be found"

setup: $(READY) lava

$(READY): pyproject.toml constraints.txt
	@echo "Setting up .venv with $(PYTHON) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,formats,peers,notebooks,hyperdimensional,quantum]"
	@touch $@

# lava-nc runs on Python 3.10 only, so it lives in an environment of its own and is called as a separate process.
lava:
	@if [ ! -e $(LAVA_READY) ]; then \
		found=""; \
		for candidate in "$$LAVA_PYTHON" python3.10 "$$HOME"/.pyenv/versions/3.10*/bin/python "$$(uv python find 3.10 2>/dev/null)"; do \
			if [ -n "$$candidate" ] && "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No Python 3.10: the Lava engine is left out and its tests skip (LAVA_PYTHON=/path/to/python3.10 make lava)"; \
		else \
			echo "Setting up .lava-venv with $$found"; \
			"$$found" -m venv .lava-venv \
				&& .lava-venv/bin/python -m pip install --quiet --disable-pip-version-check "lava-nc==0.10.0" "h5py>=3.11,<4" "numpy>=1.24,<2" \
				&& touch $(LAVA_READY) \
				|| echo "lava-nc could not be installed: the Lava engine is left out and its tests skip"; \
		fi; \
	fi

demo: setup
	@$(BIN)/neuro demo --out out

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

suite: setup
	@$(BIN)/python -m pytest

test: lint types suite

benchmarks: setup
	@for script in loihi truenorth place; do echo "== $$script"; PYTHONPATH=. $(BIN)/python tests/benchmarks/bench_$$script.py || exit 1; done

# Needs CIFAR-10 (DATA=folder) and trains a ResNet-20 first; PEER=python is an interpreter that has spikingjelly 2.0.
benchmarks-conversion: setup
	@$(BIN)/python tests/benchmarks/bench_conversion.py --data-root $(DATA) $(if $(PEER),--peer $(PEER))
	@$(BIN)/python tests/benchmarks/bench_recipes.py --data-root $(DATA)

# DATA=folder with MNIST; PEER=python is an interpreter that has spikingjelly 2.0.
benchmarks-training: setup
	@$(BIN)/python tests/benchmarks/bench_training.py --data-root $(DATA) $(if $(PEER),--spikingjelly $(PEER))

benchmarks-fuzz: setup
	@PYTHONPATH=. $(BIN)/python tests/benchmarks/bench_fuzz.py

clean:
	rm -rf .venv .lava-venv out build *.egg-info
