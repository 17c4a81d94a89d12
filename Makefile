# make env   the environment in .venv (CPU build of torch)      make test   everything, in that environment
# make demo  sample images -> out/demo                          make lint   ruff and mypy
# make demo IMAGES=folder DEFECTS="scratch, pin hole"           make clean  what the others wrote, .venv excepted

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.dapo-installed
TORCH := $(shell grep '^torch==' constraints.txt)
# Linux machines whose package index has only the CUDA build of torch: make env TORCH_INDEX=<address of the CPU index>
TORCH_INDEX ?=
IMAGES ?=
DEFECTS ?=
TESTS ?= tests

.PHONY: env demo test lint clean browser docs
.DEFAULT_GOAL := env

env: $(STAMP)

# torch first: a later, unpinned install could otherwise bring another build of it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed, $(PYTHON) is older: make env PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "The environment could not be created: install the venv module (Debian: apt-get install python3-venv)."; exit 1; }
	@echo "Installing into $(VENV): a few minutes the first time."
	$(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[demo,test,dev]"
	@touch $@

demo: env
	$(BIN)/dapo demo --out out/demo $(if $(IMAGES),--images "$(IMAGES)") $(if $(DEFECTS),--defects "$(DEFECTS)")

test: env browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(TESTS)

lint: env
	$(BIN)/ruff check .
	$(BIN)/mypy

# The tests that open the report in a browser use the system's Chromium, and are skipped without it.
browser:
	@if [ -x /usr/bin/chromium ]; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null 2>&1 || \
		echo "Chromium could not be installed, so the browser tests are skipped: apt-get install chromium, then make test."; \
	else \
		echo "No /usr/bin/chromium, so the browser tests are skipped: install Chromium, then make test."; \
	fi

docs: env
	$(BIN)/python -m dapo.cli.reference > docs/cli.md
	$(BIN)/python docs/picture.py

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
