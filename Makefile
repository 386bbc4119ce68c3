# Needs only Python >= 3.11: "make demo" and "make test".
PYTHON ?= python3
RUN = .venv/bin/python
INSTALL = PATH="$(CURDIR)/.venv/bin:$$PATH" uv pip install
INSTALL_TESTED = $(INSTALL) --python $(RUN) --constraint constraints.txt --group dev --group docs

.PHONY: demo test test-all test-bolts lint types docs docs-serve check floors newest dist release bench results notebooks clean

demo: .venv/installed
	$(RUN) examples/demo.py $(if $(DATA),"$(DATA)")

test: .venv/installed
	$(RUN) -m pytest -m "not slow"

test-all: .venv/installed
	$(RUN) -m pytest

# Compare with lightning-bolts, where some of the methods came from.
test-bolts: .venv-bolts/installed
	.venv-bolts/bin/python -m pytest -o addopts=--import-mode=importlib -p no:warnings tests/bolts

lint: .venv/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m codespell_lib

# Check the wheel: users install it, and type checkers can't follow the mapping of the source folders.
types: .venv/installed
	rm -rf build
	$(RUN) -m build --wheel --no-isolation --outdir build . > /dev/null
	$(RUN) -m zipfile -e build/*.whl build/package
	MYPYPATH=build/package $(RUN) -m mypy -p ssl_modules

# The site, in docs/_build/html. A warning is an error: a link to nothing, or a public name without a page.
# NOTEBOOKS=run executes the notebooks, which takes minutes, so that their pages show the outputs.
docs: .venv/installed
	$(RUN) -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

docs-serve: docs
	$(RUN) -m http.server --directory docs/_build/html --bind 127.0.0.1 8000

check: lint types docs test-all test-bolts

# Run the tests with the lowest versions of the direct dependencies that pyproject.toml allows (floors), or with the
# newest versions on the index (newest). Each target recreates its environment. Both leave out the extra "bolts", because
# lightning-bolts has only one version that works.
floors: RESOLUTION = lowest-direct
newest: RESOLUTION = highest
floors newest: .venv/uv
	$(PYTHON) -m venv --clear .venv-$@
	$(INSTALL) --python .venv-$@/bin/python --resolution $(RESOLUTION) --upgrade --group dev --editable '.[viz,video,bench]'
	.venv-$@/bin/python -m pytest -m "not slow"

# Build sdist and wheel, install each into an empty environment, and run the README's first lines there.
dist: .venv/installed
	rm -rf build/dist
	$(RUN) -m build --no-isolation --outdir build/dist . > /dev/null
	$(RUN) -c 'import re; print(re.search("```python\n(.*?)```", open("README.md").read(), re.S)[1])' > build/dist/lines.py
	for file in build/dist/*.whl build/dist/*.tar.gz; do \
		$(PYTHON) -m venv --clear build/dist/env && \
		$(INSTALL) --python build/dist/env/bin/python --constraint constraints.txt $$file && \
		(cd build/dist && env/bin/python lines.py && env/bin/ssl-modules --version) || exit 1; \
	done

release: check floors newest dist

# Speed and memory compared with other libraries, as ratios of one run. Use an otherwise idle machine.
bench: .venv/installed-bench
	$(RUN) examples/benchmarks/augmentation.py
	$(RUN) examples/benchmarks/objective.py
	$(RUN) examples/benchmarks/queued.py
	$(RUN) examples/benchmarks/step.py
	$(RUN) examples/benchmarks/few_pixels.py
	$(RUN) examples/benchmarks/ranking.py
	$(RUN) examples/benchmarks/local.py
	$(RUN) examples/benchmarks/loading.py
	$(RUN) examples/benchmarks/decoding.py
	$(RUN) examples/benchmarks/probes.py

# Train and evaluate all methods with the same budget. This takes about 50 core-hours. Rows that are measured are kept.
results: .venv/installed-bench
	$(RUN) examples/results/run.py --search
	$(RUN) examples/results/run.py
	$(RUN) examples/results/run.py --sets scattered --seeds 0 1 2 --only "lightly's SimCLR" "lightly's MoCo"
	$(RUN) examples/claims/groco_neighbours.py --out docs/groco_neighbours.svg
	$(RUN) examples/claims/rince_ranks.py --out docs/rince_ranks.svg
	$(RUN) examples/results/digits.py
	$(RUN) examples/results/table.py

notebooks: .venv/installed
	$(RUN) -m jupytext --to ipynb examples/notebooks/*.py

clean:
	rm -rf docs/_build docs/reference/generated docs/reference/*.rst docs/notebooks
	rm -rf .venv .venv-bolts .venv-floors .venv-newest build *.egg-info .mypy_cache .pytest_cache .ruff_cache

# Install uv from constraints.txt, unless an installed uv supports dependency groups.
.venv/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1); say which: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@$(INSTALL) --help 2>&1 | grep -q -e --group || $(RUN) -m pip install --quiet --constraint constraints.txt uv
	@touch $@

.venv/installed: .venv/uv pyproject.toml constraints.txt
	$(INSTALL_TESTED) --editable '.[viz,video]'
	@touch $@

.venv/installed-bench: .venv/installed
	$(INSTALL_TESTED) --editable '.[viz,video,bench]'
	@touch $@

# lightning-bolts needs older versions of setuptools and pytorch-lightning than the rest.
.venv-bolts/installed: .venv/installed
	@test -x .venv-bolts/bin/python || $(PYTHON) -m venv .venv-bolts || { rm -rf .venv-bolts; exit 1; }
	grep -v -E '^(setuptools|pytorch-lightning)==' constraints.txt | \
		$(INSTALL) --python .venv-bolts/bin/python --constraint - --editable '.[bolts]' pytest
	@touch $@
