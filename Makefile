# `make help` lists what can be done. Works inside an active conda or virtual environment; makes .venv otherwise.
# Every path here is relative, or a shell reads it from the environment: the checkout may lie anywhere.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# A make that a test starts has words of its own.
MAKEOVERRIDES :=

# Every run and many tests start Pythons of their own; none of them should compile pandas or this library again.
export UV_COMPILE_BYTECODE := 1
# The library of this folder runs, whatever the environment holds, and no package of the user's home.
export PYTHONPATH := $(CURDIR)/lib
export PYTHONNOUSERSITE := 1
unexport PYTHONHOME
unexport PYTHONDONTWRITEBYTECODE
export PERSONA_STUDIES_PYTHON := $(shell tools/environment --which)
python := "$$PERSONA_STUDIES_PYTHON"

NODE := tests/browser/node_modules/.package-lock.json
# Python and uv's resolution: the lowest versions that pyproject.toml allows, and the highest.
RANGE := 3.11-lowest 3.12-highest 3.13-highest

# --- Words that a user gives -----------------------------------------------------------------------------------

STUDIES := $(basename $(notdir $(wildcard studies/*.ipynb)))
VERBS := help reproduce verify accept new study sweep grid test test-all test-range test-live test-load test-slurm check lab \
  release site screenshots test-browser readme record report bench parity lock licences audit test-faults environment \
  development live gpu workflow $(STUDIES:%=run-%) $(RANGE:%=range-%)
.PHONY: $(VERBS) $(STUDIES)

GOALS := $(or $(MAKECMDGOALS),help)
# `make study sycophancy` names the study as STUDY=sycophancy does; `make sycophancy` runs it.
NAMED := $(filter $(STUDIES),$(GOALS))
ABOUT := $(filter study sweep record accept verify,$(GOALS))
GIVEN := $(sort $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
takes = $(if $(filter $(STUDIES),$(1)),PARAMS FLAGS,$(takes.$(1)))
takes.reproduce := JOBS
takes.study := STUDY PARAMS FLAGS
takes.record := STUDY MODEL PARAMS MEASURES FLAGS
takes.report := MODEL FLAGS
takes.sweep := STUDY GRID FLAGS
takes.accept := STUDY
takes.new := STUDY
takes.verify := STUDY
takes.grid := RUNS PROFILE
takes.lab := FLAGS
takes.test := FLAGS
takes.test-all := FLAGS
TAKEN := $(sort $(foreach goal,$(GOALS),$(call takes,$(goal))))
OTHERS := $(filter-out $(TAKEN) MAKE%,$(GIVEN))
# Names of parameters begin with a small letter.
PARAMETERS := $(filter $(addsuffix %,a b c d e f g h i j k l m n o p q r s t u v w x y z),$(OTHERS))
STRANGE := $(if $(NAMED)$(filter study sweep record,$(GOALS)),$(filter-out $(PARAMETERS),$(OTHERS)),$(OTHERS))
UNKNOWN := $(filter-out $(VERBS) $(STUDIES) $(NODE),$(GOALS))

ifneq ($(UNKNOWN),)
  $(error make knows no '$(firstword $(UNKNOWN))'. Studies: $(STUDIES). `make help` lists the commands)
endif
ifneq ($(STRANGE),)
  $(error make $(GOALS) takes $(or $(TAKEN),no variables)$(if $(filter PARAMS GRID,$(TAKEN)), and parameters of the study), \
    not $(firstword $(STRANGE)). Other parameters: make study STUDY=$(firstword $(NAMED) $(STUDIES)) PARAMS="NAME=VALUE ...". \
    A variable of the environment stands before make: $(firstword $(STRANGE))=... make $(GOALS))
endif
ifneq ($(and $(ABOUT),$(word 2,$(NAMED))),)
  $(error make $(ABOUT) takes one study, not $(NAMED))
endif
ifneq ($(and $(ABOUT),$(NAMED),$(filter STUDY,$(GIVEN)),$(filter-out $(NAMED),$(STUDY))),)
  $(error make $(GOALS) STUDY=$(STUDY) names two studies)
endif

STUDY ?= sycophancy
MODEL ?= smollm2-135m-instruct
RUNS ?= grid.json
PROFILE ?= local
# The command line's study counts, in `make accept` none is all.
CHOSEN := $(or $(NAMED),$(if $(filter STUDY,$(GIVEN)),$(STUDY)))
ifneq ($(and $(ABOUT),$(NAMED)),)
  override STUDY := $(NAMED)
endif
define newline


endef
# As they were given: neither make nor a shell looks for variables or quotations in them.
override export JOBS := $(value JOBS)
override export STUDY := $(value STUDY)
override export MODEL := $(value MODEL)
override export MEASURES := $(value MEASURES)
override export PARAMS := $(value PARAMS)
override export GRID := $(value GRID)
override export FLAGS := $(value FLAGS)
override export RUNS := $(value RUNS)
override export PROFILE := $(value PROFILE)
export ASSIGNMENTS := $(foreach name,$(PARAMETERS),$(name)=$(value $(name))$(newline))

# --- Commands ----------------------------------------------------------------------------------------------------

help:  ## show this list
	@echo "persona-studies: reproducible studies of how personas change large language models"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

reproduce: environment  ## run every study from its recorded responses, two at a time, and compare with the reference (JOBS=1: one at a time)
	@$(python) -m persona_studies reproduce $(if $(JOBS),--jobs "$$JOBS")

$(STUDIES:%=run-%): run-%: environment
	@$(python) -m persona_studies run $*

verify: environment  ## compare build/ with the committed reference (STUDY=, default all)
	@$(python) -m persona_studies verify $(if $(CHOSEN),"$$STUDY")

accept: environment  ## make build/ the reference, after showing the difference (STUDY=, default all)
	@$(python) -m persona_studies accept $(if $(CHOSEN),"$$STUDY")

study: environment  ## run one study with other parameters (STUDY=sycophancy PARAMS="alpha=0.01 ...", or each as alpha=0.01)
	@$(python) tools/words.py persona_studies run

ifneq ($(ABOUT),)
$(STUDIES): ; @:
else
$(STUDIES): environment
	@STUDY=$@ $(python) tools/words.py persona_studies run
endif

new: environment  ## write a small study that works, to be made one's own (STUDY=name; see docs/adding_a_study.md)
	@$(python) -m persona_studies new "$$STUDY"

sweep: environment  ## run a grid of parameters, draw the specification curves (STUDY= GRID="alpha=0.01,0.05 ..." FLAGS=)
	@$(python) tools/words.py persona_studies sweep

record: environment  ## record a model's responses, resumable (STUDY= MODEL= PARAMS= MEASURES= FLAGS=--dry-run)
	@$(python) tools/words.py persona_studies record

report: environment  ## a model's report card: what personas do to it, on one page (MODEL= FLAGS="--quick")
	@$(python) tools/words.py persona_studies report

readme: environment  ## rewrite the generated parts of the README files
	@$(python) -m persona_studies.publish.readme

site: environment  ## build the studies as a static site in build/site/
	@$(python) -m persona_studies site

release: development  ## build dist/: archive of the commit with hashes and RO-Crate metadata, the same bytes every time
	@$(python) -m persona_studies.publish.release

licences: development  ## rewrite docs/licences.md from what the locked packages say of themselves (Linux, Python 3.11, uv)
	@printf '%s\n\n' '# Licences of the locked dependencies' \
	  'What the packages of `requirements.lock` declare, on Linux with Python 3.11; `make licences` rewrites this list.' \
	  > docs/licences.md
	@uv tool run --from pip-licenses==5.5.5 pip-licenses --python $(python) --from mixed --with-system --no-version \
	  --format markdown --packages $$(sed -n 's/^\([A-Za-z0-9][^=]*\)==.*/\1/p' requirements.lock) >> docs/licences.md

audit:  ## look the locked packages up among known vulnerabilities (needs uv and a connection)
	@uv audit --frozen --preview-features audit-command

lab: environment  ## open the studies in JupyterLab, on the index studies/README.md (FLAGS=)
	@$(python) tools/words.py jupyterlab --notebook-dir=. --LabApp.default_url=/lab/tree/studies/README.md \
	  --LabApp.app_settings_dir=lib/persona_studies/publish/lab

test test-all: development
	@PYTEST_ADDOPTS="$$FLAGS" FLAGS= $(python) -m pytest -n auto --maxprocesses 8 --dist loadfile \
	  -m "not live and not browser and not slow and not slurm and not load$(if $(filter test,$@), and not attack)"
test:  ## run the tests of the studies and the library (FLAGS= for pytest)
test-all:  ## run these and the attacks: kills, damage, odd input at length (FLAGS= for pytest)

test-faults: development  ## kill recordings and runs 200 times, flip thousands of bits, about 20 minutes
	@$(python) -m pytest -n auto --maxprocesses 8 -m slow -rP

test-range: $(RANGE:%=range-%)  ## run every study and test with the oldest and newest supported versions (needs uv; about an hour)

# Each in a clone of the last commit, with an environment of its own. The reference numbers are the same for all, on an
# old processor too: last digits depend on its vector instructions.
$(RANGE:%=range-%): range-%:
	@rm -rf build/range/$* && git clone --quiet . build/range/$*
	@uv venv --quiet --python $(firstword $(subst -, ,$*)) build/range/$*/.venv
	@uv pip install --quiet --python build/range/$*/.venv --resolution $(word 2,$(subst -, ,$*))$(if $(findstring lowest,$*),-direct) \
	  --editable 'build/range/$*[dev]'
	@VIRTUAL_ENV="$$PWD/build/range/$*/.venv" $(if $(findstring lowest,$*),OPENBLAS_CORETYPE=Prescott) \
	  $(MAKE) -C build/range/$* reproduce test

test-live: development  ## run the tests of the llama.cpp backend with the embedded model (compiles it once)
	@$(python) -c 'import llama_cpp' 2>/dev/null || tools/environment dev live
	@$(python) -c 'import uvicorn, fastapi' 2>/dev/null || tools/environment dev 'llama-cpp-python[server]'
	@$(python) -m pytest -m live -rs

test-browser: development $(NODE)  ## check the site's pages and JupyterLab in Chromium (needs Node.js, Chromium)
	@$(python) -m pytest -m browser

screenshots: site $(NODE)  ## take the pictures of docs/ anew (needs Node.js, Chromium)
	@node tests/browser/screenshots.mjs . docs/screenshots
	@$(python) -c 'import pathlib, PIL.Image as images; [images.open(p).convert("RGB").quantize(256, dither=0).save(p, optimize=True) for p in pathlib.Path("docs/screenshots").glob("*.png")]'

test-load: development  ## ask a local endpoint many questions at a time while it refuses and hangs up; rates in build/load.csv
	@$(python) -c 'import llama_cpp' 2>/dev/null || tools/environment dev live
	@$(python) -c 'import uvicorn, fastapi' 2>/dev/null || tools/environment dev 'llama-cpp-python[server]'
	@$(python) -m pytest -m load

test-slurm: development workflow  ## run a grid on a SLURM of one node that dies midway (needs slurm-wlm and munge)
	@$(python) -c 'import llama_cpp' 2>/dev/null || tools/environment dev live
	@$(python) -m pytest -m slurm -rs --log-cli-level=INFO

grid: environment workflow  ## work off what `persona-studies grid` wrote (RUNS=grid.json PROFILE=local, slurm, kubernetes)
	@build/workflow/bin/python -m snakemake -s workflow/Snakefile --workflow-profile "workflow/profiles/$$PROFILE" \
	  --config grid="$$RUNS" call="$$(printf %q $(python)) -m persona_studies"

bench: development  ## measure the engine beside its peers, about 15 minutes (needs the extra live; peers get build/bench-venv)
	@$(python) -c 'import llama_cpp' 2>/dev/null || tools/environment dev live
	@$(python) benchmarks/bench.py

parity: development  ## compare every backend and schedule with full prefill in fp32 (needs the extras live and gpu)
	@$(python) -c 'import llama_cpp' 2>/dev/null || tools/environment dev live
	@$(python) -c 'import torch, transformers, gguf' 2>/dev/null || tools/environment dev live gpu
	@$(python) benchmarks/parity.py

check: development  ## lint, format, types, lock files, notebook rules
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy lib/persona_studies studies/*/*.py tools
	@$(python) tools/lock.py
	@$(python) -m persona_studies.reproduce.notebooks

lock:  ## make requirements.lock, which pip installs from, of uv.lock (needs uv)
	@uv export --quiet --frozen --no-emit-project --no-header --no-annotate --format requirements-txt \
	  --extra dev --extra api --extra release --output-file requirements.lock >/dev/null

# --- Environment -----------------------------------------------------------------------------------------------

# Nothing is taken for granted: each time the environment is looked at (0.2 s), and mended where something is wrong.
environment:
	@tools/environment

development:
	@tools/environment dev

live:  ## install what recording with llama.cpp takes, as locked (compiles for about ten minutes)
	@tools/environment dev live

gpu:  ## install what recording with transformers takes, as locked (gigabytes)
	@tools/environment dev gpu

# Snakemake in an environment of its own, beside the studies'.
workflow:
	@tools/environment --separate build/workflow workflow/requirements.txt

$(NODE): tests/browser/package-lock.json
	@command -v npm >/dev/null || { echo 'npm is missing. Install Node.js 20 or newer with npm (Debian: nodejs npm).' >&2; exit 1; }
	@npm --prefix tests/browser ci --silent
	@touch $@
