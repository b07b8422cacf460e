# make demo   set up .venv if need be, then watch a network learn real anatomy
# make test   set up .venv if need be, then run every check (scripts/check)
# make docs   set up .venv if need be, then build the site into build/docs; the tutorials run once, warnings are errors
# make dist   build wheel and sdist twice, compare and check them, into dist (TAG=vX.Y.Z compares the version)
# make extras install every extra in a fresh environment and run its smallest example (many minutes)
# make sbom   write the bill of materials and the licences of dependencies into build/sbom
# make audit  the same, then look for known vulnerabilities of dependencies by pip-audit (needs the internet)
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

.PHONY: demo test docs dist extras sbom audit clean

demo: .venv/installed-demo
	$(BIN)/python -m scanseg demo

test: .venv/installed-dev
	$(BIN)/python scripts/check

docs: .venv/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html -d build/doctrees docs build/docs

dist: .venv/installed-release
	$(BIN)/python scripts/build_release.py --tag "$(TAG)"

extras: .venv/installed-release
	$(BIN)/python scripts/check_extras.py

sbom: .venv/installed-release
	$(BIN)/python scripts/sbom.py

audit: .venv/installed-release
	$(BIN)/python scripts/sbom.py --audit

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The development tools come with all that the demo needs, so that they count as both.
.venv/installed-dev: pyproject.toml constraints.txt | .venv/created
	@echo "Installing scanseg and its development tools into .venv (minutes the first time) ..."
	$(INSTALL) --editable ".[dev,demo]"
	@touch $@ .venv/installed-demo

# The tutorials use most extras, which come with the development tools.
.venv/installed-docs: pyproject.toml constraints.txt | .venv/created
	@echo "Installing scanseg and the tools of the site into .venv (minutes the first time) ..."
	$(INSTALL) --editable ".[dev,demo,docs]"
	@touch $@ .venv/installed-dev .venv/installed-demo

.venv/installed-release: pyproject.toml constraints.txt | .venv/created
	@echo "Installing scanseg and the tools of a release into .venv (minutes the first time) ..."
	$(INSTALL) --editable ".[release]"
	@touch $@

.venv/installed-demo: pyproject.toml constraints.txt | .venv/created
	@echo "Installing scanseg and the demo's needs into .venv (minutes the first time) ..."
	$(INSTALL) --editable ".[demo]"
	@touch $@

.venv/created:
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('scanseg needs Python 3.11 or newer; $(PYTHON) is ' + sys.version.split()[0] + '. Name another: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	@touch $@
