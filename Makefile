# make demo and make test need nothing but Python 3.11 or newer: they build their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# LlamaIndex's Milvus store wants pymilvus 2, LangChain's wants 3: it gets an environment of its own.
PAIR := $(VENV)-llama-index-milvus

SOURCES := $(shell find core gte_integrations -name '*.py' -o -path '*/data/*' -type f)

.PHONY: demo test lint format clean

demo: $(VENV)/.package
	$(BIN)/python examples/demo.py

test: $(VENV)/.package $(PAIR)/.package
	$(PAIR)/bin/pytest tests/adapters/test_llama_index_milvus.py \
		'tests/test_examples.py::test_it_runs[hybrid_llama_index_milvus]'
	$(BIN)/pytest

lint: $(VENV)/.package
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.package
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Everything but the package itself; only a change of the requirements repeats it.
$(VENV)/.requirements: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt '.[test]'
	touch $@

# Not editable, so that what is tested is what the wheel holds.
$(VENV)/.package: $(VENV)/.requirements $(SOURCES) README.md LICENSE
	$(BIN)/python -m pip install --no-deps --force-reinstall --no-build-isolation .
	touch $@

$(PAIR)/.requirements: pyproject.toml constraints.txt
	test -x $(PAIR)/bin/python || $(PYTHON) -m venv $(PAIR)
	grep -v '^pymilvus=' constraints.txt > $(PAIR)/constraints.txt
	$(PAIR)/bin/python -m pip install --constraint $(PAIR)/constraints.txt torch
	$(PAIR)/bin/python -m pip install --constraint $(PAIR)/constraints.txt \
		'.[llama-index-milvus]' hatchling pytest pytest-asyncio
	touch $@

$(PAIR)/.package: $(PAIR)/.requirements $(SOURCES) README.md LICENSE
	$(PAIR)/bin/python -m pip install --no-deps --force-reinstall --no-build-isolation .
	touch $@

clean:
	rm -rf $(VENV) $(PAIR) demo-index dist build
