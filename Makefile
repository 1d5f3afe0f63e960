# Every target works alone on a fresh clone: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= studies/demo

.PHONY: install demo test quick test-executors test-faults fuzz test-peers test-torch package docs notebook evidence lint clean

install: $(VENV)/.installed

# The stamp is written last, so that an interrupted installation is done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench,dev,docs,formats,dicom,ray,search,slurm]"
	touch $@

demo: install
	$(BIN)/voxloss demo --study $(DEMO)

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Two processes by default; the tests' tensors are tiny, so each takes one thread.
JOBS ?= 2
test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not executors and not peers and not package" --durations 20 --durations-min 3

# What most changes need before a commit.
quick: install
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow and not browser and not executors and not peers and not package"

# Studies on a real Slurm and on Ray, whose machines are processes of this one; skipped where they are not installed.
test-executors: install
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m executors --durations 20 tests/executors

# The site, in build/site. --strict: a broken link or an undocumented name is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The site is in build/site; $(BIN)/python -m http.server -d build/site shows it at http://localhost:8000."

# Executes the notebook in its place; its outputs are committed.
NOTEBOOK := docs/how-to/from-images-to-verdict.ipynb
notebook: install
	PATH="$(abspath $(BIN)):$$PATH" jupyter nbconvert --to notebook --execute --inplace $(NOTEBOOK)
	$(BIN)/jupyter nbconvert --to notebook --coalesce-streams --inplace $(NOTEBOOK)

# The pages, tables and pictures of the evidence, from the scores in evidence/results, and the table for `voxloss advise`.
evidence: install
	$(BIN)/voxloss evidence report evidence/results --output docs/evidence --claims evidence/claims.yaml
	cp docs/evidence/estimates.csv src/voxloss/evidence/estimates.csv

# A study killed 20 times at random moments, and 100 of its workers (`make test` kills one study and two workers);
# and others that act before every operation on files (`make test` tries some).
test-faults: install
	VOXLOSS_KILLS=20 $(BIN)/python -m pytest -s tests/test_survival.py
	VOXLOSS_KILLS=100 $(BIN)/python -m pytest -s tests/test_takeover.py -k killed_at_random
	VOXLOSS_MOMENTS=1 $(BIN)/python -m pytest tests/test_moments.py

# Damaged image files in all formats, for SECONDS (`make test` does it for a few).
fuzz: install
	VOXLOSS_FUZZ_SECONDS=$(or $(SECONDS),3600) $(BIN)/python -m pytest tests/data/test_fuzz_formats.py

# Other libraries' losses, and nnU-Net, MONAI and Lightning as trainers, in an environment of their own: what they require
# does not go beside the study's packages.
PEERS := .venv-peers
$(PEERS)/.installed: constraints.txt tests/peers/requirements.txt tests/peers/requirements-alone.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints.txt --requirement tests/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --no-deps --requirement tests/peers/requirements-alone.txt --editable .
	touch $@

test-peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m pytest tests/peers

# The wheel and the source distribution: built, checked, and installed in a fresh environment that has torch alone.
package: install
	$(BIN)/python -m pytest tests/package

# The losses' tests with another version of torch than the pinned one, in an environment of its own: the oldest that
# pyproject.toml allows by default, `make test-torch TORCH=2.14.1` for another. A build for CUDA takes several GB.
TORCH ?= 2.4.1
TORCHS := .venv-torch-$(TORCH)
$(TORCHS)/.installed:
	$(PYTHON) -m venv $(TORCHS)
	$(TORCHS)/bin/python -m pip install --quiet "torch==$(TORCH)" --editable . "numpy>=1.26" scipy PyYAML \
		mpmath hypothesis pytest pytest-xdist
	touch $@

test-torch: $(TORCHS)/.installed
	$(TORCHS)/bin/python -m pytest -n $(JOBS) tests/losses

clean:
	rm -rf $(VENV) $(PEERS) .venv-torch-* build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
