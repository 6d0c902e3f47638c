# `make help` lists what can be done. Works inside an active conda or virtual environment; makes .venv otherwise.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# Every run and many tests start Pythons of their own; none of them should compile pandas again.
export UV_COMPILE_BYTECODE := 1

STUDIES := $(basename $(notdir $(wildcard studies/*.ipynb)))
ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
ENV := $(or $(ACTIVE),$(CURDIR)/.venv)
BIN := $(ENV)/bin
STAMPS := $(if $(ACTIVE),$(CURDIR)/build/.environment,$(CURDIR)/.venv)
INSTALLED := $(STAMPS)/.installed
DEV := $(STAMPS)/.installed-dev
NODE := tests/browser/node_modules/.package-lock.json
LOCKS := pyproject.toml uv.lock requirements.lock
# Python and uv's resolution: the lowest versions that pyproject.toml allows, and the highest.
RANGE := 3.11-lowest 3.12-highest 3.13-highest
STUDY ?= sycophancy
MODEL ?= smollm2-135m-instruct
RUNS ?= grid.json
PROFILE ?= local
WORKFLOW := $(CURDIR)/build/workflow

.PHONY: help reproduce verify accept study sweep grid test test-range test-live test-load test-slurm check lab release site screenshots test-browser readme record bench parity lock licences audit test-faults $(STUDIES:%=run-%)

help:  ## show this list
	@echo "persona-studies: reproducible studies of how personas change large language models"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

reproduce: $(STUDIES:%=run-%)  ## run every study from its recorded responses and compare with the reference (-j2: two at a time)
	@$(BIN)/persona-studies verify

$(STUDIES:%=run-%): run-%: $(INSTALLED)
	@$(BIN)/persona-studies run $*

verify: $(INSTALLED)  ## compare build/ with the committed reference
	@$(BIN)/persona-studies verify

accept: $(INSTALLED)  ## make build/ the reference, after showing the difference (STUDY=, default all)
	@$(BIN)/persona-studies accept $(if $(filter command line,$(origin STUDY)),$(STUDY))

study: $(INSTALLED)  ## run one study with other parameters (STUDY=sycophancy PARAMS="alpha=0.01")
	@$(BIN)/persona-studies run $(STUDY) --params '$(PARAMS)'

sweep: $(INSTALLED)  ## run a grid of parameters, draw the specification curves (STUDY= GRID="alpha=0.01,0.05 ..." FLAGS=)
	@$(BIN)/persona-studies sweep $(STUDY) --grid '$(GRID)' $(FLAGS)

record: $(INSTALLED)  ## record a model's responses, resumable (STUDY= MODEL= PARAMS= MEASURES= FLAGS=--dry-run)
	@$(BIN)/persona-studies record $(STUDY) --model '$(MODEL)' --params '$(PARAMS)' $(if $(MEASURES),--measures '$(MEASURES)') $(FLAGS)

readme: $(INSTALLED)  ## rewrite the generated parts of the README files
	@$(BIN)/python -m persona_studies.publish.readme

site: $(INSTALLED)  ## build the studies as a static site in build/site/
	@$(BIN)/persona-studies site

release: $(DEV)  ## build dist/: archive of the commit with hashes and RO-Crate metadata, the same bytes every time
	@$(BIN)/python -m persona_studies.publish.release

licences: $(DEV)  ## rewrite docs/licences.md from what the locked packages say of themselves (Linux, Python 3.11, uv)
	@printf '%s\n\n' '# Licences of the locked dependencies' \
	  'What the packages of `requirements.lock` declare, on Linux with Python 3.11; `make licences` rewrites this list.' \
	  > docs/licences.md
	@uv tool run --from pip-licenses==5.5.5 pip-licenses --python $(BIN)/python --from mixed --with-system --no-version \
	  --format markdown --packages $$(sed -n 's/^\([A-Za-z0-9][^=]*\)==.*/\1/p' requirements.lock) >> docs/licences.md

audit:  ## look the locked packages up among known vulnerabilities (needs uv and a connection)
	@uv audit --frozen --preview-features audit-command

lab: $(INSTALLED)  ## open the studies in JupyterLab, on the index studies/README.md (FLAGS=)
	@$(BIN)/jupyter lab --notebook-dir=$(CURDIR) --LabApp.default_url=/lab/tree/studies/README.md \
	  --LabApp.app_settings_dir=$(CURDIR)/lib/persona_studies/publish/lab $(FLAGS)

test: $(DEV)  ## run the tests
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile \
	  -m "not live and not browser and not slow and not slurm and not load"

test-faults: $(DEV)  ## kill recordings and runs 200 times, flip thousands of bits, about 20 minutes
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 -m slow -rP

test-range: $(RANGE:%=range-%)  ## run every study and test with the oldest and newest supported versions (needs uv; about an hour)

# Each in a clone of the last commit, with an environment of its own. The reference numbers are the same for all, on an
# old processor too: last digits depend on its vector instructions.
$(RANGE:%=range-%): range-%:
	@rm -rf build/range/$* && git clone --quiet . build/range/$*
	@uv venv --quiet --python $(firstword $(subst -, ,$*)) build/range/$*/.venv
	@uv pip install --quiet --python build/range/$*/.venv --resolution $(word 2,$(subst -, ,$*))$(if $(findstring lowest,$*),-direct) \
	  --editable 'build/range/$*[dev]'
	@VIRTUAL_ENV=$(CURDIR)/build/range/$*/.venv $(if $(findstring lowest,$*),OPENBLAS_CORETYPE=Prescott) \
	  $(MAKE) -C build/range/$* reproduce test

test-live: $(DEV)  ## run the tests of the llama.cpp backend with the embedded model (compiles it once)
	@$(BIN)/python -c 'import llama_cpp' || $(call install,live)
	@$(BIN)/python -c 'import uvicorn, fastapi' 2>/dev/null || $(call add,llama-cpp-python[server])
	@$(BIN)/python -m pytest -m live -rs

test-browser: $(DEV) $(NODE)  ## check the site's pages and JupyterLab in Chromium (needs Node.js, Chromium)
	@$(BIN)/python -m pytest -m browser

screenshots: site $(NODE)  ## take the pictures of docs/ anew (needs Node.js, Chromium)
	@node tests/browser/screenshots.mjs . docs/screenshots
	@$(BIN)/python -c 'import pathlib, PIL.Image as images; [images.open(p).convert("RGB").quantize(256, dither=0).save(p, optimize=True) for p in pathlib.Path("docs/screenshots").glob("*.png")]'

test-load: $(DEV)  ## ask a local endpoint many questions at a time while it refuses and hangs up; rates in build/load.csv
	@$(BIN)/python -c 'import llama_cpp' || $(call install,live)
	@$(BIN)/python -c 'import uvicorn, fastapi' 2>/dev/null || $(call add,llama-cpp-python[server])
	@$(BIN)/python -m pytest -m load

test-slurm: $(DEV) $(WORKFLOW)  ## run a grid on a SLURM of one node that dies midway (needs slurm-wlm and munge)
	@$(BIN)/python -c 'import llama_cpp' || $(call install,live)
	@$(BIN)/python -m pytest -m slurm -rs --log-cli-level=INFO

grid: $(INSTALLED) $(WORKFLOW)  ## work off what `persona-studies grid` wrote (RUNS=grid.json PROFILE=local, slurm, kubernetes)
	@$(WORKFLOW)/bin/snakemake -s workflow/Snakefile --workflow-profile workflow/profiles/$(PROFILE) \
	  --config grid='$(RUNS)' call=$(BIN)/persona-studies

bench: $(DEV)  ## measure the engine beside its peers, about 15 minutes (needs the extra live; peers get build/bench-venv)
	@$(BIN)/python -c 'import llama_cpp' || $(call install,live)
	@$(BIN)/python benchmarks/bench.py

parity: $(DEV)  ## compare every backend and schedule with full prefill in fp32 (needs the extras live and gpu)
	@$(BIN)/python -c 'import llama_cpp' || $(call install,live)
	@$(BIN)/python -c 'import torch, transformers, gguf' || $(call install,gpu)
	@$(BIN)/python benchmarks/parity.py

check: $(DEV)  ## lint, format, types, lock files, notebook rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy lib/persona_studies studies/*/*.py tools
	@$(BIN)/python tools/lock.py
	@$(BIN)/python -m persona_studies.reproduce.notebooks

lock:  ## make requirements.lock, which pip installs from, of uv.lock (needs uv)
	@uv export --quiet --frozen --no-emit-project --no-header --no-annotate --format requirements-txt \
	  --extra dev --extra api --extra release --output-file requirements.lock >/dev/null

# --- Environment -----------------------------------------------------------------------------------------------

# In an active environment only what is missing is added; in .venv exactly what the lock says.
ifdef ACTIVE
install = if command -v uv >/dev/null; then uv pip install --python $(BIN)/python -e '.[$(1)]'; else $(BIN)/python -m pip install -e '.[$(1)]'; fi
else
install = if command -v uv >/dev/null; then uv sync --frozen --inexact --extra $(1); else $(BIN)/python -m pip install -e '.[$(1)]'; fi
endif

add = if command -v uv >/dev/null; then uv pip install --python $(BIN)/python '$(1)'; else $(BIN)/python -m pip install '$(1)'; fi

$(INSTALLED): $(LOCKS)
ifdef ACTIVE
	@mkdir -p $(STAMPS)
	@if $(BIN)/python -c 'import persona_studies, papermill, pingouin, great_tables' 2>/dev/null; \
	then echo "using $(ENV)"; \
	else echo "installing persona-studies into $(ENV)"; \
	  if command -v uv >/dev/null; then uv pip install --python $(BIN)/python -e .; else $(BIN)/python -m pip install -e .; fi; fi
else
	@if command -v uv >/dev/null; \
	then echo "making .venv with uv"; uv sync --frozen --inexact; \
	else echo "making .venv with venv and pip, from hashes"; python3 -m venv .venv; \
	  .venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock; \
	  .venv/bin/python -m pip install --quiet --no-deps -e .; fi
endif
	@touch $@

# Snakemake in an environment of its own, beside the studies'.
$(WORKFLOW): workflow/requirements.txt
	@echo "making build/workflow"
	@if command -v uv >/dev/null; then uv venv --quiet --allow-existing $@ && uv pip install --quiet --python $@/bin/python -r $<; \
	else python3 -m venv $@ && $@/bin/python -m pip install --quiet -r $<; fi
	@touch $@

$(DEV): $(INSTALLED)
	@echo "adding what the tests need"
	@$(if $(ACTIVE),$(call install,dev),if command -v uv >/dev/null; then uv sync --quiet --frozen --inexact --extra dev; fi)
	@touch $@

$(NODE): tests/browser/package-lock.json
	@npm --prefix tests/browser ci --silent
	@touch $@
