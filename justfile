# One command for each thing a contributor does; `just` lists them. `.venv/bin/pip install rust-just` brings the program.

python := ".venv/bin/python"

# List the commands.
default:
    @just --list

# Set up .venv with everything that tests and checks need, and the checks before each commit.
setup:
    python3 -m venv .venv && .venv/bin/pip install -q uv && .venv/bin/uv pip install -q -p .venv --compile-bytecode -e '.[test,dev]'
    .venv/bin/pre-commit install

# Run the suite, or part of it: `just test -k clamp`.
test *args:
    {{ python }} -m pytest {{ args }}

# Run the tests of one package: `just test-package lowrank`.
test-package package *args:
    {{ python }} -m pytest tests/{{ package }} {{ args }}

# Run the checks that take minutes or need real data (ZOO_DATA_DIR: a folder with cifar-10-batches-py).
test-slow *args:
    {{ python }} -m pytest -m slow -n 0 --dist no {{ args }}

# Check style, spelling and the order of the packages.
lint:
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/codespell
    .venv/bin/lint-imports

# Format the code.
format:
    .venv/bin/ruff check --fix .
    .venv/bin/ruff format .

# Check the types.
types:
    .venv/bin/mypy

# Run a benchmark: `just benchmark training_step --archs resnet18`.
benchmark name *args:
    {{ python }} tests/benchmarks/{{ name }}.py {{ args }}

# Build the documentation site into build/site, with broken links as errors.
site:
    .venv/bin/uv pip install -q -p .venv -e '.[docs]'
    {{ python }} docs/site/build_site.py

# Run the notebooks and store what they print.
notebooks:
    PYTHONWARNINGS=ignore:IProgress .venv/bin/jupyter-execute --inplace examples/*.ipynb

# Write the tables and the picture of README and docs anew, from the published cards.
tables:
    {{ python }} tests/refresh_readme.py
    {{ python }} tests/refresh_published.py
    {{ python }} tests/refresh_curves.py

# Do what CI does, in a new .venv.
ci:
    bash .ci/run
