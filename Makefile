# crypto-rt. `make` lists the targets; `make run` is all that a fresh machine needs beside Python 3.11+ and a C compiler.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
DONE := .venv/.done
UV := $(BIN)/uv
UV_VERSION := 0.13.9
export VIRTUAL_ENV := $(CURDIR)/.venv
export PYO3_PYTHON := $(CURDIR)/.venv/bin/python
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export GIT_PYTHON_REFRESH := quiet

# Where no cargo is installed, one is put into .venv/rust by puccinialin, which is what maturin itself would use
# (run apart from .venv: it asks for an older filelock than the lock has).
ifeq ($(shell command -v cargo),)
export CARGO_HOME := $(CURDIR)/.venv/rust/cargo
export RUSTUP_HOME := $(CURDIR)/.venv/rust/rustup
export PATH := $(CARGO_HOME)/bin:$(PATH)
RUST := $(DONE)/rust
endif

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
NOTEBOOK_DIRS := nbs $(wildcard pipelines)
PYTHON_DIRS := $(wildcard nbs tests apps benches pipelines conftest.py)

.PHONY: help run setup test test-long bench notebooks wheel lock lint drift rust-test
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## set up what is missing, then start everything; Ctrl-C stops it
	@exec $(BIN)/crypto-rt up $(ARGS)

setup: $(DONE)/lock $(DONE)/torch $(DONE)/core $(DONE)/kafka ## make .venv with all that is needed; nothing to do the second time
	@:

# The cells of one notebook and the tests of one file stay together, in one of the workers; each worker has its own Kafka.
# conftest.py says which files come first. nbval runs every cell of every notebook, and compares what it shows.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n > 4 ? 4 : n )))
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 120 --nbval-sanitize-with tests/nbval.cfg

test: setup drift lint rust-test ## set up, then all tests, side by side; the last line is pytest's own
	@echo '== tests and notebooks'
	@$(PYTEST) tests nbs $(NBVAL)

test-long: setup ## what is random, ten times as often: more examples, chaos with 20 seeds; some hours
	@CRYPTO_RT_TEST_REPEAT=10 CRYPTO_RT_TEST_LONG=1 $(PYTEST) tests --timeout 7200

bench: setup ## the benchmarks, on release builds
	@$(BIN)/crypto-rt bench all

notebooks: setup ## JupyterLab on the notebooks
	@$(BIN)/jupyter labextension disable '@jupyterlab/apputils-extension:announcements' >/dev/null 2>&1 || true
	@exec $(BIN)/jupyter lab nbs

wheel: setup ## a wheel in dist/ that runs without this folder: compose file, contracts, pipelines and apps are in it
	@echo '== wheel'
	@$(BIN)/maturin build -q --release --out dist
	@ls dist/*.whl

lock: $(UV) ## write requirements.lock again, after pyproject.toml has changed
	@$(UV) pip compile pyproject.toml --all-extras -c torch.txt --universal --python-version 3.11 --generate-hashes \
		--no-emit-package torch --no-annotate --no-header -q -o requirements.lock

# --- what setup is made of; each step leaves a stamp in .venv/.done, so removing .venv starts afresh

$(UV):
	@[ -n '$(PYTHON)' ] || { echo 'expected Python 3.11 or newer as python3 on the PATH, found none; install it, or name one: make PYTHON=/where/it/is/python3.12' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("expected Python 3.11 or newer, was %d.%d; name another: make PYTHON=python3.12" % v[:2])'
	@echo '== .venv'
	@'$(PYTHON)' -m venv .venv || { echo "python's venv module does not work here; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@mkdir -p $(DONE)

$(DONE)/lock: requirements.lock | $(UV)
	@echo '== packages of requirements.lock'
	@$(UV) pip install -q --require-hashes --no-deps -r requirements.lock
	@mkdir -p $(DONE) && touch $@

# The CPU build where PyTorch's own index answers (it is asked for a few seconds), else the registry's build, some GB with CUDA.
# --no-config: the metadata in pyproject.toml that keeps CUDA out of the lock would otherwise keep it out here as well.
$(DONE)/torch: torch.txt $(DONE)/lock
	@echo '== torch'
	@$(UV) pip install -q --no-config --torch-backend cpu -r torch.txt 2>/dev/null || $(UV) pip install -q --no-config -r torch.txt
	@$(UV) pip check -q
	@touch $@

$(DONE)/rust: | $(DONE)/lock
	@echo '== a Rust toolchain, for there is no cargo here'
	@$(UV) run -q --isolated --no-project --with puccinialin python -m puccinialin --location .venv/rust >/dev/null
	@touch $@

$(DONE)/core: pyproject.toml rust/Cargo.toml $(wildcard rust/Cargo.lock rust/src/*.rs rust/src/*/*.rs) $(RUST) | $(DONE)/lock
	@command -v cc >/dev/null || { echo 'expected a C compiler as cc on the PATH (it links the Rust core), found none; on Debian and Ubuntu: apt install gcc libc6-dev' >&2; exit 1; }
	@echo '== crypto_rt with its Rust core'
	@$(UV) pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(DONE)/kafka: ops/kafka/kafka-jars.txt | $(DONE)/core
	@echo "== Kafka's jars"
	@$(BIN)/crypto-rt kafka --fetch
	@touch $@

# --- what test is made of

drift: setup
	@echo '== lock'
	@$(UV) pip check -q
	@$(BIN)/python -m pytest -q --no-header tests/repository/test_repository.py -k lock
	@echo '== generated files'
	@sum() { find crypto_rt data_contracts -name '*.py' -o -name '*.schema.json' | LC_ALL=C sort | xargs cksum; }; \
	before=$$(sum); $(BIN)/nbdev-export; after=$$(sum); \
	[ "$$before" = "$$after" ] || { echo 'crypto_rt/ was not what nbs/ says; it has now been exported again. Commit these files:' >&2; \
		diff <(echo "$$before") <(echo "$$after") | awk '/^>/ { print "  " $$NF }' >&2; exit 1; }

lint: setup
	@echo '== ruff and mypy'
	@$(BIN)/ruff check -q $(PYTHON_DIRS)
	@$(BIN)/ruff format --check -q $(PYTHON_DIRS)
	@$(BIN)/mypy

rust-test: setup
	@echo '== Rust'
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	@cargo fmt --check --manifest-path rust/Cargo.toml
	@cargo clippy -q --manifest-path rust/Cargo.toml --all-targets --all-features -- -D warnings
	@cargo test -q --manifest-path rust/Cargo.toml
