# Each target does all its own set-up; the second time nothing is installed again.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ROOT ?= out/mini
ARGS ?=

PEERS := $(VENV)/.peers
# On all cores, which pip does not; some packages hold files that are no Python. Where Python may write no bytecode, every process
# would compile everything again.
COMPILE = $(PY) -m compileall -qq -j 0 $(VENV)/lib || true

.PHONY: help mini test slow lint peers bench clean lock

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

mini: $(STAMP)  ## the whole story on this machine: a small web -> dataset -> CLIP -> zero-shot score -> report (minutes)
	@$(PY) -m infra.mini.run --root $(ROOT) $(ARGS)

test: $(STAMP)  ## the tests: no network, no GPU, no object store
	@$(PY) -m pytest -q $(ARGS)

slow: $(STAMP)  ## the long tests: processes killed in every stage, between stages, in training
	@$(PY) -m pytest -q -m 'slow and not object_store and not peers' $(ARGS)

lint: $(STAMP)  ## format, rules and types
	@$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m pyright --pythonpath $(PY)

peers: $(PEERS)  ## the tests that compare us with other projects' packages (installs them)
	@$(PY) -m pytest -q -m peers $(ARGS)

bench: $(PEERS)  ## every benchmark beside its peer; each ends with `NAME ratio=X.XX` (installs the peers)
	@for b in $$(grep -l 'ratio=' tests/benchmarks/*.py); do $(PY) -m tests.benchmarks.$$(basename $$b .py) || exit 1; done

lock: $(STAMP)  ## write the two lock files anew from pyproject.toml
	@$(PY) -m infra.lock

clean:  ## forget the environment and what the runs made
	rm -rf $(VENV) out *.egg-info .pytest_cache .ruff_cache

$(PEERS): $(STAMP) requirements-peers.lock
	@echo "installing the peers into $(VENV) (once)"
	@$(PY) -m pip install -q --disable-pip-version-check --no-compile -r requirements.lock -r requirements-peers.lock
	@$(COMPILE)
	@touch $@

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed and none was found; install it or give PYTHON=path"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than Python 3.11; give PYTHON=path"; exit 2; }
	@echo "installing into $(VENV) (once)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check --no-compile -r requirements.lock
	@echo "$(CURDIR)" > "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/wit.pth"
	@$(COMPILE)
	@touch $@
