# The commands of the project. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
# Benchmarks have an environment of their own: the rivals need other versions of what the tests' servers need.
BENCH  ?= .venvs/bench
# A run starts hundreds of Pythons. Where the environment forbids bytecode, as images do, each would compile every module
# that it imports: three times the time that its start takes.
export PYTHONDONTWRITEBYTECODE :=
# Tests wait for processes, leases and timeouts a quarter of their time: two testers more than two cores keep both busy.
TESTERS ?= 4
# uv is used where it is installed, since it is faster; pip does the same from the same hashes.
UV     := $(shell command -v uv 2>/dev/null)
ifdef UV
install = uv pip install --quiet --python $(1)
else
install = $(1) -m pip install --quiet --disable-pip-version-check
endif
INSTALL := $(call install,$(PY))
INSTALL_BENCH := $(call install,$(BENCH)/bin/python)

.PHONY: help run test check bench crash sbom audit format lock clean
help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(PY):
	$(PYTHON) -m venv $(VENV)

# One stamp for each lock, named by its digest, so that a second run starts at once.
$(VENV)/base.stamp: requirements/base.txt requirements/build.txt requirements/demo.txt pyproject.toml | $(PY)
	@echo "installing the locked dependencies into $(VENV) (once; about a minute)"
	$(INSTALL) --require-hashes -r requirements/base.txt -r requirements/build.txt
	$(INSTALL) --require-hashes --no-deps --no-build-isolation -r requirements/demo.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/base.stamp
	@echo "installing the locked tools for tests and checks into $(VENV)"
	$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

run: $(VENV)/base.stamp ## the whole story on real data, then a running platform
	@$(VENV)/bin/taut demo

test: $(VENV)/dev.stamp ## every test, with real servers from packages; up to three that failed are tried again alone (STRICT=1: none)
	$(PY) tools/test $(if $(STRICT),--strict) -n $(TESTERS) --dist loadgroup -q

check: $(VENV)/dev.stamp ## format, lint, types, import contracts, docs
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q tests/architecture

$(BENCH)/bench.stamp: requirements/base.txt requirements/build.txt requirements/demo.txt requirements/bench.txt pyproject.toml
	@echo "installing taut and its rivals from the lock into $(BENCH) (once; a minute or two)"
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(INSTALL_BENCH) --require-hashes -r requirements/base.txt -r requirements/build.txt
	$(INSTALL_BENCH) --require-hashes --no-deps --no-build-isolation -r requirements/demo.txt
	$(INSTALL_BENCH) --require-hashes -r requirements/bench.txt
	$(INSTALL_BENCH) --no-deps --no-build-isolation --editable .
	@touch $@

# The rival servers conflict with each other: each has an environment of its own, made only when they are to be measured.
# One that cannot be installed here stops nothing: its line in the table says so, and why is in its log.
RIVALS       := mlserver litserve bentoml ray
RIVAL_STAMPS := $(RIVALS:%=.venvs/rivals-%/rival.stamp)
.venvs/rivals-%/rival.stamp: requirements/rivals/%.txt
	@echo "installing the rival $* from its lock into $(@D) (once)"
	@rm -f $@ && mkdir -p $(@D)
	@{ { test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D); } && \
	  $(call install,$(@D)/bin/python) --require-hashes -r $< && touch $@; } > $(@D)/install.log 2>&1 || \
	  echo "  $* cannot be installed: see $(@D)/install.log"

bench: $(BENCH)/bench.stamp $(if $(ONLY),$(if $(filter rivals,$(ONLY)),$(RIVAL_STAMPS)),$(RIVAL_STAMPS)) ## benchmarks beside rivals: a table, and benchmarks/results.json (ONLY="data ledger" runs some; KEEP=1 keeps their figures)
	@$(BENCH)/bin/python -m benchmarks $(if $(KEEP),--keep) $(ONLY)

crash: $(VENV)/dev.stamp ## kill -9 at every edge, not only at a sample: a line each, a quarter of an hour to a half
	TAUT_CRASH=all $(PY) -m pytest -n $(TESTERS) --dist loadgroup -v -m crash

sbom: $(VENV)/base.stamp ## the bill of materials of taut itself, CycloneDX 1.6, from the lock: build/taut.cdx.json
	@$(PY) tools/sbom build/taut.cdx.json

audit: $(VENV)/base.stamp ## known vulnerabilities in what the locks allow; fails where it could not look (ADVISORIES=a mirror of OSV's records of PyPI)
	@$(PY) tools/audit "$(or $(ADVISORIES),$(TAUT_ADVISORIES))" requirements/base.txt requirements/dev.txt

format: $(VENV)/dev.stamp ## format and sort in place
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

lock: ## renew the hash locks from pyproject.toml
	tools/lock

clean: ## remove the environment and caches, never data
	rm -rf $(VENV) $(BENCH) .venvs/rivals-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
