PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench reliability soak audit clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Create .venv with everything in it (needs Python 3.11 and a C++ compiler)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e '.[offline,annoy,hnswlib,milvus,redis,bench,dev]'
	touch $@

demo: install ## The whole story in a minute; KEEP=1 leaves the service up, DATA=ml-1m FROM=dir
	$(BIN)/tandem demo $(if $(KEEP),--keep) $(if $(DATA),--data $(DATA)) $(if $(FROM),--from $(FROM))

test: check ## All checks, then all tests
	$(BIN)/pytest -n 2 --dist loadfile tests/service/test_operations.py tests  # the longest first

check: install ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Format the code and sort its imports
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: install ## All benchmarks against their bars; JSON in bench-out/
	mkdir -p bench-out
	$(BIN)/tandem bench all --check --json bench-out/bench.json

reliability: install ## Kills, swaps, stops under load, in minutes, and a table of them; SEED=n repeats a run
	TANDEM_RELIABILITY=short $(if $(SEED),TANDEM_SEED=$(SEED)) $(BIN)/pytest tests/service/reliability

soak: install ## The same in hours, and ten times as many random operations; SEED=n repeats a run
	TANDEM_RELIABILITY=long $(if $(SEED),TANDEM_SEED=$(SEED)) $(BIN)/pytest tests/service/reliability
	TANDEM_OPERATIONS=200000 $(if $(SEED),TANDEM_SEED=$(SEED)) $(BIN)/pytest -s tests/service/test_operations.py

audit: install ## Known weaknesses of the pinned dependencies; needs the network, fails when it is not there
	$(BIN)/python .ci/audit.py constraints.txt

clean: ## Remove what was built, never data, runs, store or state
	rm -rf .venv build dist *.egg-info demo bench-out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
