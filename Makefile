# Two commands matter: `make train` and `make test`. Both create .venv on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
PRESET ?= toybox
DATA ?=
WORKERS ?= 2
NOTEBOOKS := $(wildcard book/[0-9]*.ipynb)

.PHONY: help install bench train tables test lint unit coverage mutants fuzz notebooks book pdf pair execute soak audit lock \
  rehearsal clean

help:
	@echo 'make train    train the default (PRESET=coco DATA=/path for COCO) and show the result table'
	@echo 'make tables   make the runs behind the tables (PRESET=, DATA=, WORKERS=2) and gather them'
	@echo 'make test     lint, unit tests, notebook validation, book build'
	@echo 'make coverage the unit tests, and which lines of the package they reach'
	@echo 'make mutants  put faults into a copy of the package, one by one: the tests must notice each'
	@echo 'make book     build the book only'
	@echo 'make pdf      the book as one PDF (needs Chromium and poppler)'
	@echo 'make fuzz     over a million broken inputs for all parsers (a few thousand are part of make test)'
	@echo 'make bench    time training steps and write the rows of the chapter on costs'
	@echo 'make soak     kill runs at random times, damage files, fill disks, cut connections; counts what was survived'
	@echo 'make rehearsal  notebook 03 on made-up data of the full size of COCO, within 10 GB; prints every peak'
	@echo 'make audit    look all packages of requirements.lock up among known vulnerabilities (needs a network)'
	@echo 'make lock     write requirements.lock anew, from pyproject.toml and constraints.txt (needs a network)'
	@echo 'make pair     make the .ipynb of every chapter from its .py, keeping outputs'
	@echo 'make execute  run every chapter with its default parameters and store the outputs'

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo 'installing into $(VENV) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

train: install
	@mkdir -p runs
	$(BIN)/papermill book/03_train_coco.ipynb runs/03_train_coco.ipynb --cwd . --no-progress-bar --log-output \
	  -k python3 -p preset $(PRESET) $(if $(DATA),-p data_root $(DATA))
	@$(BIN)/topdown show runs/$(PRESET)

# What is done is not done again; a stopped or failed run goes on from its checkpoint.
tables: install
	$(BIN)/topdown tables --preset $(PRESET) --workers $(WORKERS) $(if $(DATA),--data-root $(DATA))
	$(BIN)/topdown tables growth --preset $(PRESET) $(if $(DATA),--data-root $(DATA))
	$(BIN)/topdown tables probes --preset $(PRESET) $(if $(DATA),--data-root $(DATA))
	@$(BIN)/topdown tables claims

test: lint unit notebooks book

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

unit: install
	$(BIN)/pytest tests

# A quarter of an hour or more on one core. It goes on where it stopped, unless the code has changed.
fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz

coverage: install
	rm -f .coverage*
	$(BIN)/coverage run -m pytest tests
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants

# The chapters' default parameters train for minutes. TOPDOWN_PRESET replaces the preset by one of seconds; see the
# README, 'Checking the notebooks'.
notebooks: install
	TOPDOWN_PRESET=smoke $(BIN)/pytest --nbval-lax --nbval-cell-timeout=300 -p no:cacheprovider $(NOTEBOOKS)

book: install
	@rm -rf _build
	$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	$(BIN)/python tests/check_book.py
	$(BIN)/python -m tests.live_page _build/html/book/02_modulation_maps.html

pdf: book
	$(BIN)/python -m tests.print_book _build/book.pdf

rehearsal: install
	$(BIN)/python -m tests.rehearsal --work runs/rehearsal --table figures/tables/rehearsal.csv

bench: install
	$(BIN)/topdown bench --preset coco --batch-size 8 --precision bf16 --models baseline top-down six-iterations \
	  --table figures/tables/bench.csv --evaluation
	$(BIN)/topdown bench --preset coco --batch-size 8 --precision fp32 --models baseline top-down six-iterations \
	  --table figures/tables/bench.csv
	$(BIN)/topdown bench --preset slotwise --rounds 60 --models baseline top-down six-iterations \
	  --table figures/tables/bench.csv
	$(BIN)/topdown bench --preset coco --batch-size 4 --rounds 5 --grow figures/tables/bench_growth.csv
	$(BIN)/topdown bench --preset coco --batch-size 8 --store figures/tables/token_store.csv
	$(BIN)/topdown bench --preset coco --precision fp32 --models baseline top-down six-iterations \
	  --inference figures/tables/inference.csv

pair: install
	$(BIN)/python tests/tidy_notebooks.py pair

execute: install
	$(BIN)/python tests/tidy_notebooks.py execute

# Runs killed at random times, and faults of files, disks, servers and numbers: about half an hour on two cores.
soak: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak

AUDIT := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[audit]'

audit: install
	@$(AUDIT)
	$(BIN)/pip-audit --strict --requirement requirements.lock --require-hashes --disable-pip

lock: install
	@$(AUDIT)
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	  --no-emit-find-links --custom-compile-command 'make lock' --extra all --constraints constraints.txt \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf _build runs .pytest_cache .ruff_cache .coverage*
