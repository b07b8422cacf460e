# make demo   set up .venv if need be, then watch a network learn real anatomy
# make test   set up .venv if need be, then run every check (scripts/check)
# make clean  remove .venv and what the tools have cached
#
# Another interpreter: make test PYTHON=python3.12. A build of PyTorch that is already in .venv is kept if its
# version fits constraints.txt (see docs/deployment.md for the CPU and CUDA builds).

ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test clean

demo: .venv/installed-demo
	$(BIN)/python -m scanseg demo

test: .venv/installed-dev
	$(BIN)/python scripts/check

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The development tools come with all that the demo needs, so that they count as both.
.venv/installed-dev: pyproject.toml constraints.txt | .venv/created
	@echo "Installing scanseg and its development tools into .venv (minutes the first time) ..."
	$(INSTALL) --editable ".[dev,demo]"
	@touch $@ .venv/installed-demo

.venv/installed-demo: pyproject.toml constraints.txt | .venv/created
	@echo "Installing scanseg and the demo's needs into .venv (minutes the first time) ..."
	$(INSTALL) --editable ".[demo]"
	@touch $@

.venv/created:
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('scanseg needs Python 3.11 or newer; $(PYTHON) is ' + sys.version.split()[0] + '. Name another: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	@touch $@
