# Each target installs what it needs first: `make demo` works on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
SOURCES := pyproject.toml constraints.txt setup.py $(wildcard src/lth/native/*/*.cpp src/lth/native/*/*.hpp)

.PHONY: install develop demo test bench docs sanitize lint clean

# What a user needs.
install: .venv/.installed

.venv/.installed: $(SOURCES)
	@echo "Installing lth and its dependencies into .venv (PyTorch is the largest); this takes a few minutes."
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

# What the tests, the documentation and the linters need in addition. lth is installed by now and is not built again.
develop: .venv/.developing

.venv/.developing: .venv/.installed
	@echo "Installing what the tests and the documentation need into .venv."
	$(PIP) --quiet 'lth[dev]'
	@touch $@

# The main experiment on real MNIST, scaled to about three minutes on two cores.
demo: install
	$(BIN)/lth run lenet --trials 2 --levels 10 --scale 0.2

# Two processes with one thread each. Files stay together, because their tests share runs.
test: develop
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

bench: install
	$(BIN)/lth bench

# The site, into site/.
docs: develop
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The kernels with sanitizers, and their tests.
sanitize: develop
	$(BIN)/python benchmarks/sanitize.py

# Run the experiments of results/NAME and keep their tables. It can be stopped at any time and resumes.
results-%: install
	$(BIN)/python results/make.py $*

lint: develop
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:
	rm -rf .venv build src/*.egg-info src/lth/native/*.so
