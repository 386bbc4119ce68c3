# Needs only Python >= 3.11: "make demo" and "make test".
PYTHON ?= python3
RUN = .venv/bin/python
INSTALL = PATH="$(CURDIR)/.venv/bin:$$PATH" uv pip install --python $(RUN) --constraint constraints.txt --group dev

.PHONY: demo test test-all test-bolts lint types check bench budget notebooks clean

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

# Check the wheel: users install it, and type checkers can't follow the mapping of the source folders.
types: .venv/installed
	rm -rf build
	$(RUN) -m build --wheel --no-isolation --outdir build . > /dev/null
	$(RUN) -m zipfile -e build/*.whl build/package
	MYPYPATH=build/package $(RUN) -m mypy -p ssl_modules

check: lint types test-all test-bolts

# Speed and memory compared with other libraries, as ratios of one run. Use an otherwise idle machine.
bench: .venv/installed-bench
	$(RUN) examples/benchmarks/augmentation.py
	$(RUN) examples/benchmarks/objective.py
	$(RUN) examples/benchmarks/queued.py
	$(RUN) examples/benchmarks/step.py
	$(RUN) examples/benchmarks/ranking.py
	$(RUN) examples/benchmarks/local.py
	$(RUN) examples/benchmarks/loading.py
	$(RUN) examples/benchmarks/probes.py

# Accuracy of all methods with the same training budget.
budget: .venv/installed-bench
	$(RUN) examples/benchmarks/budget.py

notebooks: .venv/installed
	$(RUN) -m jupytext --to ipynb examples/notebooks/*.py

clean:
	rm -rf .venv .venv-bolts build *.egg-info .mypy_cache .pytest_cache .ruff_cache

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1); say which: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@PATH="$(CURDIR)/.venv/bin:$$PATH" uv pip install --help 2>&1 | grep -q -e --group || \
		$(RUN) -m pip install --quiet --constraint constraints.txt uv
	$(INSTALL) --editable '.[viz]'
	@touch $@

.venv/installed-bench: .venv/installed
	$(INSTALL) --editable '.[viz,bench]'
	@touch $@

# lightning-bolts needs older versions of setuptools and pytorch-lightning than the rest.
.venv-bolts/installed: .venv/installed
	@test -x .venv-bolts/bin/python || $(PYTHON) -m venv .venv-bolts || { rm -rf .venv-bolts; exit 1; }
	grep -v -E '^(setuptools|pytorch-lightning)==' constraints.txt | PATH="$(CURDIR)/.venv/bin:$$PATH" \
		uv pip install --python .venv-bolts/bin/python --constraint - --editable '.[bolts]' pytest
	@touch $@
