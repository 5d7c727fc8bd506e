# Every target that needs it makes .venv first; nothing but python3 (3.11 or later), make and git
# has to be there. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready-to-test
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# A third party's `import datasets` must never find our folder of that name.
export PYTHONSAFEPATH := 1

.DEFAULT_GOAL := help
.PHONY: help demo weights test test-fast lint types format wheel clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## Age, train and restore on a few photos; ends in runs/demo/report.html.
	$(BIN)/agedphoto demo --out runs/demo

weights: $(INSTALLED) ## Train the models that come with agedphoto; DATA=FOLDER, see weights/README.md.
	@test -n "$(DATA)" || { echo "name the photographs: make weights DATA=FOLDER (weights/README.md)" >&2; exit 2; }
	$(BIN)/python weights/make.py --data $(DATA)

test: $(READY) ## Run the whole test suite.
	$(BIN)/python -m pytest

test-fast: $(READY) ## Run the tests that take seconds.
	$(BIN)/python -m pytest -m "not slow"

lint: $(READY) ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) ## Check types.
	@# pyright cannot follow the folder mapping of an editable install: show it the tree as installed.
	rm -rf build/types && mkdir -p build/types/agedphoto
	ln -s $(addprefix $(CURDIR)/,$(wildcard agedphoto/*.py)) build/types/agedphoto/
	ln -s $(addprefix $(CURDIR)/,textures synth datasets train restore benchmarks) build/types/agedphoto/
	$(BIN)/pyright

wheel: $(READY) ## Build the wheel into dist/.
	$(BIN)/python -m build --wheel

clean: ## Remove .venv and everything that was built.
	rm -rf $(VENV) build dist *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "agedphoto needs Python 3.11 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "this Python cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV): a few minutes, about 6 GB"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(READY): $(INSTALLED)
	$(PIP) -e '.[dev]'
	@touch $@
