# Every target works on a fresh machine with Python >= 3.10: the environment is made when it is missing or out of date.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
JOBS   ?= 2
ROUNDS ?= 3
export OMP_NUM_THREADS ?= 1

DEV := --group dev

.DEFAULT_GOAL := help
.PHONY: help venv demo test slow rtx qemu qemu-system peers check format bench resolve docs clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(STAMP)  ## make or refresh the virtual environment

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 4; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,server,bench,embedded,flash]' $(DEV)
	@touch $(STAMP)

demo: $(STAMP)  ## run a whole fleet on this machine and write demo-report.html
	$(BIN)/roadcast demo --rounds $(ROUNDS)

test: $(STAMP)  ## run every test that needs no special machine, with coverage
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov --cov-config=pyproject.toml --cov-report=term $(ARGS)

slow: $(STAMP)  ## run the tests that take more than a minute
	$(BIN)/python -m pytest -m 'slow and not qemu' $(ARGS)

rtx: $(STAMP)  ## fetch TensorRT's parser for CPUs (100 MB) and let it judge every student that is exported
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt tensorrt-rtx
	$(BIN)/python -m pytest -m rtx tests/export tests/roadcast/commands/test_export.py $(ARGS)

qemu: $(STAMP)  ## flash a whole aarch64 Debian and run it under QEMU (root; the first time it makes what is missing, 15 minutes)
	$(BIN)/python -m tests.qemu.debian
	$(BIN)/python -m pytest -s -m 'qemu and not slow' tests/qemu $(ARGS)

qemu-system: $(STAMP)  ## boot a whole aarch64 Debian with its own kernel and systemd (root; as above, and an hour on a busy machine)
	$(BIN)/python -m tests.qemu.system_image
	$(BIN)/python -m pytest -s -m 'qemu and slow' tests/qemu $(ARGS)

PEERS := build/peers-venv
peers: $(STAMP) $(PEERS)/.stamp  ## fetch NVIDIA FLARE and Flower (360 MB, an environment of their own) and compare delivery with theirs
	$(BIN)/python -m benchmarks.delivery.peers $(ARGS)

$(PEERS)/.stamp: benchmarks/delivery/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

check: $(STAMP)  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LEARNING := ablations aggregate distil_throughput forecast_attacks forecast_codec habits heads membership muenster newcomer no_proxy \
	report_codec robustness shared_trunks speed vehicle
bench: $(STAMP)  ## run every benchmark in its quick form and check its target
	@mkdir -p bench-out
	@missed=; for name in $$(basename -s .py benchmarks/*.py | grep -v harness) $(LEARNING:%=learning.%) delivery.payload delivery.bad_link delivery.fanout delivery.flash_writes latency.int8 latency.loadgen latency.refit latency.runners latency.torch_vs_ort devices.telemetry devices.flash devices.start; do \
	  $(BIN)/python -m benchmarks.$$name --quick --check --json bench-out/$$name.json || missed="$$missed $$name"; done; \
	if [ -n "$$missed" ]; then echo "missed or failed:$$missed" >&2; exit 3; fi

resolve: $(STAMP)  ## check that the edge set resolves to wheels for aarch64
	$(BIN)/python -m pytest -m slow tests/test_constraints.py

docs: $(STAMP)  ## write what is generated from code
	$(BIN)/python -m roadcast.state_diagrams
	$(BIN)/python -m tests.devices.boards.document

clean:  ## remove what tools left behind; keeps the environment
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* bench-out dist build
