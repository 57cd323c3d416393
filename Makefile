# Every target sets up .venv by itself, and finds it ready the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench clean

demo: $(READY)  ## train, evaluate, predict, explain and export on scikit-learn's bundled digits
	@report=$$($(BIN)/dlcli train digits_cnn --json) && \
	run=$$(printf '%s' "$$report" | $(BIN)/python -c 'import json, sys; print(json.load(sys.stdin)["run"])') && \
	$(BIN)/dlcli evaluate $$run && \
	$(BIN)/dlcli data samples digits_cnn --out $$run/samples && \
	$(BIN)/dlcli predict $$run $$run/samples && \
	$(BIN)/dlcli explain $$run $$run/samples && \
	$(BIN)/dlcli export $$run --format onnx && \
	echo "pictures: $$run/plots"

test: $(READY)  ## the test suite, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)  ## linters, types and tests
	$(BIN)/ruff check dlcli tests
	$(BIN)/ruff format --check dlcli tests
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: $(READY)  ## speed, as ratios within one run
	$(BIN)/python -m pytest -m benchmark -o python_files='bench_*.py' -s tests/benchmarks

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "dlcli needs Python 3.11 to 3.13; found " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
