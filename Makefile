# `make demo` runs the whole chain on eight objects, `make test` runs the tests. Both create the environment first.
# `make blender` creates another one for what only Blender does.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
RESULTS ?= results
SCALES := scratch small base full original
# With a base model in the package, the demo finetunes it; without one, it trains networks from random weights.
BASE := $(wildcard z1g/inference/models_of_the_package/base/model.json)
DEMO := $(if $(BASE),scale=tiny ablations=demo,scale=scratch)
FINETUNES := $(if $(BASE),tiny finetune)

FURNITURE ?= .furniture
FURNITURE_PACKAGE := sweethome3d-furniture
FURNITURE_SHA256 := 3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668

CORPUS ?= .corpus
LICENSES ?= all

.PHONY: demo demo-all test test-fast test-slurm lint style types rules check docs env blender clean furniture corpus

demo: env
	$(BIN)/snakemake --profile local ablation_all --config $(DEMO) results=$(RESULTS)
	@echo "Open $(RESULTS)/report.html; curves: $(BIN)/tensorboard --logdir $(RESULTS)/ablations"

# The five ablations of the original, from networks with random weights.
demo-all: env
	$(BIN)/snakemake --profile local ablation_all --config scale=scratch results=$(RESULTS)
	@echo "Open $(RESULTS)/report.html; curves: $(BIN)/tensorboard --logdir $(RESULTS)/ablations"

# Tests with Blender are skipped where there is none: `make blender`.
# Files are given to processes in the order of tests/conftest.py, the longest first, so that both end at the same time. Many
# tests start Python, which is faster with compiled modules: environments of containers often forbid to keep these.
test test-fast test-slurm: export PYTHONDONTWRITEBYTECODE =
test: env .venv/.compiled
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Some tests of every room, in under two minutes on two cores. The markers are explained in pyproject.toml.
test-fast: env
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 10 --durations-min 1 \
		-m 'not (slow or blender or browser or gpu or slurm)'

# Starts a temporary SLURM cluster on this machine. Needs root and Debian's packages slurm-wlm and munge, else skips.
# No other process sees the cluster, so that other tests may run at the same time, as in `.ci/run`.
test-slurm: env .venv/.compiled
	$(BIN)/python -m pytest -m slurm tests/slurm

# Side by side with `make -j 3 lint`.
lint: style types rules

style: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check z1g tests
	$(BIN)/lint-imports
	@# Its formatter of shell commands is searched on PATH.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt --check Snakefile workflow/rules workflow/corpus

types: env
	$(BIN)/mypy

rules: env
	@# Advice to use conda or containers for each rule is ignored, since requirements.lock pins the environment.
	! $(BIN)/snakemake --lint --config scale=scratch 2>&1 | grep '^    \* ' | grep -v 'conda environment or container'
	for scale in $(SCALES); do \
		$(BIN)/snakemake -n -q all --profile local --config scale=$$scale results=.dry-run missing=warn -- ablation_all || exit 1; \
	done
	for scale in $(FINETUNES); do \
		$(BIN)/snakemake -n -q all --profile local --config scale=$$scale ablations=demo results=.dry-run missing=warn \
			-- ablation_all || exit 1; \
	done

# The documentation as pages that need neither a server nor a network. Tests build it too. With --quiet, warnings would not count.
docs: export NO_MKDOCS_2_WARNING = 1
docs: env
	$(BIN)/python -m mkdocs build
	@echo "Open site/index.html"

env: .venv/.installed

blender: .venv-blender/.installed

.venv/.installed: requirements.lock pyproject.toml workflow/environment.py
	@echo "Installing packages into .venv, once: two minutes where they are near"
	@$(PYTHON) -m venv .venv
	@$(PYTHON) workflow/environment.py .venv requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The CPU rasterizer compiles itself when it draws first, for 20 s of a core. Processes that start side by side, as those of
# tests and of chunks, would all do it.
.venv/.compiled: .venv/.installed $(wildcard z1g/render/_*.py)
	$(BIN)/python -m z1g bench render --backend cpu --splats 500 --size 32 >/dev/null
	touch $@

# Blender's Python module needs Python 3.11 and an old numpy, so it has its own environment.
.venv-blender/.installed: requirements-blender.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Blender's Python module needs Python 3.11: set PYTHON to one, or put Blender's \`blender\` on PATH"; exit 1; }
	@echo "Installing Blender into .venv-blender, once: 400 MB"
	$(PYTHON) -m venv .venv-blender
	.venv-blender/bin/python -m pip install -qq --disable-pip-version-check --requirement requirements-blender.lock
	touch $@

# 642 pieces of furniture, CC0 and CC-BY 3.0, from a Debian package: a training set for scale=small.
furniture: $(FURNITURE)/objects.jsonl
	@echo "Train on it: $(BIN)/snakemake --profile local ablation_all --config scale=small objects=$<"

$(FURNITURE)/objects.jsonl: | env
	@mkdir -p $(FURNITURE)
	cd $(FURNITURE) && (ls $(FURNITURE_PACKAGE)_*.deb >/dev/null 2>&1 || apt-get download $(FURNITURE_PACKAGE))
	cd $(FURNITURE) && echo "$(FURNITURE_SHA256)  $$(ls $(FURNITURE_PACKAGE)_*.deb)" | sha256sum --check || { rm -f *.deb; exit 1; }
	cd $(FURNITURE) && dpkg -x $(FURNITURE_PACKAGE)_*.deb unpacked
	cd $(FURNITURE)/unpacked/usr/share/sweethome3d/furniture && \
		$(CURDIR)/$(BIN)/python -m z1g list BlendSwap-CC-0.sh3f BlendSwap-CC-BY.sh3f Scopia.sh3f --colored \
			--out $(abspath $(FURNITURE))/objects.jsonl

# Five thousand objects from Debian's packages (docs/corpus.md). LICENSES=free leaves out what is under the GPL.
corpus: | env
	$(BIN)/snakemake --cores all --snakefile workflow/corpus/Snakefile --rerun-incomplete \
		--config out=$(CORPUS) licenses=$(LICENSES)
	@echo "Train on them: $(BIN)/snakemake --profile local ablation_all --config scale=small objects=$(CORPUS)/objects.jsonl"

clean:
	rm -rf .venv .venv-blender .snakemake site $(RESULTS)
