# `make demo` runs the whole chain on eight objects; `make test` runs the tests. Both make the environment first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
RESULTS ?= results
SCALES := tiny small full seed

.PHONY: demo test lint check env clean

demo: env
	$(BIN)/snakemake --profile local ablation_all --config scale=tiny results=$(RESULTS)
	@echo "Open $(RESULTS)/report.html; curves: $(BIN)/tensorboard --logdir $(RESULTS)/ablations"

test: env
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check z1g tests
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	@# The one advice not taken: conda or containers for each rule; requirements.lock pins the environment instead.
	! $(BIN)/snakemake --lint --config scale=tiny 2>&1 | grep '^    \* ' | grep -v 'conda environment or container'
	for scale in $(SCALES); do \
		$(BIN)/snakemake -n -q all --profile local --config scale=$$scale results=.dry-run -- ablation_all || exit 1; \
	done

env: .venv/.installed .venv-blender/.installed

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Blender's Python module needs Python 3.11 and an old numpy, so it lives apart. Elsewhere, put `blender` on PATH.
.venv-blender/.installed: requirements-blender.lock
	@mkdir -p .venv-blender
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		$(PYTHON) -m venv .venv-blender && \
		.venv-blender/bin/python -m pip install --quiet --requirement requirements-blender.lock; \
	else \
		echo "Python 3.11 not found: ingest will use 'blender' from PATH"; \
	fi
	touch $@

clean:
	rm -rf .venv .venv-blender .snakemake $(RESULTS)
