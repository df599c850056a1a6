# make demo and make test need nothing but Python 3.11 or newer: they build their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# LlamaIndex's Milvus store wants pymilvus 2 where LangChain's wants 3, and fastembed an older
# huggingface-hub: these two get an environment of their own. There are also the lowest versions of
# transformers and sentence-transformers that are declared.
APART := $(VENV)-apart

# The site is made of docs/ and of docstrings that are read, not imported: its environment is small.
DOCS := $(VENV)-docs

SOURCES := $(shell find core gte_integrations -name '*.py' -o -path '*/data/*' -type f)

.PHONY: demo docs table test test-slow lint format clean

demo: $(VENV)/.package
	$(BIN)/python examples/demo.py

# Into build/site; python -m http.server --directory build/site shows it.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(DOCS)/.requirements
	$(DOCS)/bin/mkdocs build --clean

# What docs and README say of the checkpoints that load, read anew.
table: $(VENV)/.package
	$(BIN)/python docs/checkpoints.py

# Two workers, one thread each: more threads than cores wait for each other.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.package $(APART)/.package
	$(APART)/bin/pytest tests/adapters/test_llama_index_milvus.py \
		tests/adapters/test_fastembed.py \
		tests/adapters/test_transformers.py \
		tests/adapters/test_sentence_transformers.py \
		'tests/test_examples.py::test_it_runs[hybrid_llama_index_milvus]'
	$(BIN)/pytest --numprocesses 2 --dist worksteal

# One after the other, with all cores: races and kills are among them.
test-slow: $(VENV)/.package
	$(BIN)/pytest -m slow --durations 10 -o faulthandler_timeout=1500

lint: $(VENV)/.package
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

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

$(APART)/.requirements: pyproject.toml constraints.txt
	test -x $(APART)/bin/python || $(PYTHON) -m venv $(APART)
	grep -vE '^(pymilvus|huggingface_hub|transformers|tokenizers|sentence-transformers)=' constraints.txt > $(APART)/constraints.txt
	$(APART)/bin/python -m pip install --constraint $(APART)/constraints.txt torch
	$(APART)/bin/python -m pip install --constraint $(APART)/constraints.txt \
		'.[fastembed,llama-index-milvus]' 'transformers==5.7.0' 'sentence-transformers==6.0.0' \
		hatchling hypothesis pytest pytest-asyncio
	touch $@

$(APART)/.package: $(APART)/.requirements $(SOURCES) README.md LICENSE
	$(APART)/bin/python -m pip install --no-deps --force-reinstall --no-build-isolation .
	touch $@

$(DOCS)/.requirements: pyproject.toml constraints.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -c 'import tomllib; \
		project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*project["optional-dependencies"]["docs"], sep="\n")' > $(DOCS)/requirements.txt
	$(DOCS)/bin/python -m pip install --constraint constraints.txt \
		--requirement $(DOCS)/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(APART) $(DOCS) demo-index dist build
