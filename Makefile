# Everything runs from .venv, made on first use and again only when pyproject.toml or constraints.txt change.
PYTHON ?= python3.11 python3
BIN := .venv/bin
SAMPLE := .venv/sample.stamp
DEV := .venv/dev.stamp
BENCH := .venv/bench.stamp

.PHONY: help demo test test-long test-gpu test-slurm test-browser coverage mutation check bench bench-scale simulate-scale clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(SAMPLE) ## I-GOS at 28 x 28 on the embedded sample
	$(BIN)/igos-bench

# One process more than cores: each waits now and then for others that it has started.
WORKERS = $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --maxprocesses 4

test: $(DEV) ## the tests, without the long ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile tests -m "not long and not gpu and not slurm and not browser" $(COVER)

test-long: $(DEV) ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 tests -m long

test-gpu: $(DEV) ## the tests that need a CUDA device
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "make test-gpu: no CUDA device here")'
	$(BIN)/python -m pytest -q tests -m gpu

# The packages are Debian's; what start brought up is stopped by its numbers, however the tests end.
test-slurm: $(DEV) ## the tests on a real Slurm, which is started here: as root
	@[ "$$(id -u)" = 0 ] || { echo "make test-slurm needs root, for munged and slurmd: sudo make test-slurm" >&2; exit 1; }
	@PATH="$$PATH:/usr/sbin"; command -v sbatch >/dev/null && command -v munged >/dev/null || { apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends slurm-wlm munge >/dev/null; }
	@folder=$$(mktemp -d); trap 'scripts/local_slurm.sh stop $$folder; rm -rf $$folder' EXIT; trap 'exit 130' INT TERM; \
		scripts/local_slurm.sh start $$folder && . $$folder/env && \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests -m slurm

test-browser: $(DEV) ## the report in chromium, films by ffmpeg; screenshots in build/screenshots
	@{ command -v chromium && command -v ffmpeg; } >/dev/null || if [ "$$(id -u)" = 0 ]; then \
		echo "installing chromium and ffmpeg"; apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
			apt-get -qq install -y --no-install-recommends chromium ffmpeg >/dev/null; \
	else echo "make test-browser needs chromium and ffmpeg: sudo apt-get install chromium ffmpeg" >&2; exit 1; fi
	$(BIN)/python -m pytest -q -s tests -m browser

coverage: ## the same tests, and the lines and branches that they run: fails below 90 %
	@$(MAKE) --no-print-directory test COVER=--cov

mutation: $(DEV) ## changes to the metrics and to the storage of results that no test notices: half an hour
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 1

check: $(DEV) ## format, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict igos_bench scripts

# What make was given of these names, as a script takes it: a list's brackets are nothing for the shell.
options = $(foreach name,$(1),$(if $($(name)),'$(name)=$($(name))'))

bench: $(BENCH) ## seconds an image beside other implementations: 20 minutes, or 3 with quick=true
	$(BIN)/python scripts/bench.py $(call options,quick networks precisions methods device out)

bench-scale: $(DEV) ## seconds an image and memory from 50 to 5,000 images
	$(BIN)/python scripts/bench_scale.py $(call options,images out)

simulate-scale: $(DEV) ## table, status and resume of up to 19.2 million made-up rows: 4 to 6 minutes, 4 GB of disk
	$(BIN)/python scripts/simulate_scale.py

clean: ## remove .venv, caches and builds; results stay
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define install
	@echo "installing igos-bench[$(1)] into .venv: about two minutes and 6 GB the first time"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]'
endef

$(SAMPLE): pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,sample)
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/pip
	$(call install,dev)
	@touch $@ $(SAMPLE)  # dev has the sample in it: a later `make demo` installs nothing

# Without what it asks for: opencv-python would overwrite grad-cam's opencv-python-headless and want a screen's
# libraries. All the rest of it is in dev.
$(BENCH): constraints.txt $(DEV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt quantus
	@touch $@

# pip is the last thing that `venv` writes: an interrupted attempt is made again.
$(BIN)/pip:
	@for python in $(PYTHON); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making .venv with $$($$python --version)"; exec $$python -m venv .venv; \
		fi; \
	done; \
	echo "igos-bench needs Python 3.11 or newer; tried: $(PYTHON)." \
		"Install one, or name yours: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	exit 1
