# Each target makes or reuses the environment in .venv by itself.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
PAGE := _build/html/index.html

.DEFAULT_GOAL := help
.PHONY: book test lab serve bench clean help

book: $(READY)  ## Execute the notebooks and build the pages into _build/html
	$(RUN) book/build.py
	@echo "The book is in $(PAGE)"

test: $(READY)  ## Run all tests: package, notebooks, pages as a reader sees them
	$(RUN) tests/browser.py
	$(RUN) book/build.py
	OMP_NUM_THREADS=1 $(RUN) -m pytest tests --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 20

lab: $(READY)  ## Open the notebooks in JupyterLab
	$(VENV)/bin/jupyter lab --notebook-dir=.

serve: book  ## Build the book and serve it at http://localhost:8000
	$(RUN) -m http.server 8000 --bind 127.0.0.1 --directory _build/html

bench: book  ## Measure speed against peers and limits, and record it in results/
	$(RUN) benchmarks/energy.py --out results/benchmark_energy.csv
	$(RUN) benchmarks/replay.py --out results/benchmark_replay.csv
	$(RUN) benchmarks/boltzmann.py --out results/benchmark_boltzmann.csv
	$(RUN) benchmarks/training.py --out results/benchmark_training.csv
	$(RUN) benchmarks/frames.py --out results/benchmark_frames.csv
	$(RUN) benchmarks/stable_full_size.py --out results/benchmark_stable.csv

clean:  ## Remove the environment and everything that was built
	rm -rf $(VENV) _build _work .pytest_cache .ruff_cache .hypothesis *.egg-info

help:  ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | \
	while IFS="$$(printf '\t')" read -r name text; do printf 'make %-7s %s\n' "$$name" "$$text"; done

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "This book needs Python 3.11 or newer; name one, as in: make PYTHON=python3.12 book"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --progress-bar off -r requirements.txt
	@touch $@
