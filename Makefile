# Each target sets itself up: `make demo` on a fresh machine installs first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install demo test bench docs sanitize lint clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard src/lth/native/*/*.cpp src/lth/native/*/*.hpp)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

# The main job on real MNIST, scaled to about three minutes on two cores.
demo: install
	$(BIN)/lth run lenet --trials 2 --levels 10 --scale 0.2

test: install
	$(BIN)/python -m pytest

bench: install
	$(BIN)/lth bench

# The site, into site/.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The kernels with sanitizers, and their tests.
sanitize: install
	$(BIN)/python benchmarks/sanitize.py

# The experiments of results/NAME, and what is kept of them; stop it as you like, it resumes.
results-%: install
	$(BIN)/python results/make.py $*

lint: install
	$(BIN)/ruff check .
	$(BIN)/pyright

clean:
	rm -rf .venv build src/*.egg-info src/lth/native/*.so
