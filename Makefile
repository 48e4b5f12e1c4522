VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt  # the versions that continuous integration has seen; empty for the newest
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix --constraint ,$(CONSTRAINTS))
SOURCES := tpc backends programs tests benchmarks docs cli.py

.PHONY: demo test lint verdicts docs bench bench-gpu golden clean

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.developed: $(VENV)/.installed
	$(INSTALL) --editable ".[dev]"
	touch $@

demo: $(VENV)/.installed  ## train the π-limit of programs/mlp.py on the embedded digits
	$(BIN)/tpc train programs/mlp.py --data digits --out runs/demo --overwrite

lint: $(VENV)/.developed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check --quiet $(SOURCES)
	$(BIN)/mypy

test: lint  ## lint, type-check and run every test
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

verdicts: $(VENV)/.developed  ## false alarms of tpc check, and wrong limits that it finds; minutes
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.verdicts

docs: $(VENV)/.developed  ## build the documents as a site, site/index.html
	$(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.installed  ## time and memory of a step, in ratios to plain NumPy transcriptions
	$(BIN)/python -m benchmarks $(BENCH)

bench-gpu: $(VENV)/.developed  ## the same on a CUDA device, against its bandwidth; says so where there is none
	$(BIN)/python -m benchmarks.gpu $(BENCH)

golden: $(VENV)/.developed  ## rewrite the golden texts and documented outputs after an intended change
	$(BIN)/python -m pytest tests/golden tests/docs --update-golden

clean:
	rm -rf $(VENV) build dist runs site
