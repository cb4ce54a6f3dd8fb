# Two commands matter: `make demo` and `make test`. Both work in a fresh clone with Python 3.11 or newer and no GPU.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUT ?= runs/demo
# For instance PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu", to be sure of torch's small CPU build.
PIP_FLAGS ?=
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)
# A process a core, each with one thread: most tests are many small products, which threads only slow down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
CHECKED := src tests benchmarks examples tools

.PHONY: demo test quick lint docs detector browser clean

demo: $(VENV)/.installed
	$(BIN)/usthand demo --out $(DEMO_OUT)

test: demo $(VENV)/.installed-test lint browser
	$(PYTEST)

quick: $(VENV)/.installed-test lint
	$(PYTEST) -m "not slow"

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/lint-imports
	$(BIN)/basedpyright --project . --pythonpath $(BIN)/python

docs: $(VENV)/.installed-test
	$(BIN)/mkdocs build --strict

# torch by itself first: named with its exact version, its CPU build is taken where one is at hand.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import ensurepip" || (apt-get update && apt-get install -y python3-venv)
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable .
	touch $@

# anny without its dependencies: the one that is large, warp-lang, is not needed.
$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable ".[test]"
	$(PIP) --no-deps "$$(grep '^anny==' constraints.txt)"
	touch $@

# For the tests of the page on which fingertips are marked; they are skipped where there is none and none can be had.
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	    || (apt-get update && apt-get install -y chromium) || echo "no Chromium: tests of the marking page are skipped"

# MediaPipe pins numpy<2, so it lives in an environment of its own; `usthand label` finds it here.
detector: .venv-mediapipe/.installed

.venv-mediapipe/.installed:
	$(PYTHON) -m venv .venv-mediapipe
	.venv-mediapipe/bin/pip install --quiet --disable-pip-version-check mediapipe==0.10.21
	touch $@

clean:
	rm -rf runs site .venv .venv-mediapipe
