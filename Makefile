# `make demo` and `make test` need python3 >= 3.10, g++ and make; the rest they install themselves.

STACK ?= official
TORCH ?=
PYTHON ?= python3
VENV ?= $(if $(filter official,$(STACK)),.venv,.venv-$(STACK))
# nproc obeys OMP_NUM_THREADS; what is wanted is the number of cores.
WORKERS ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)

PY = $(VENV)/bin/python
DOCS_VENV := .venv-docs

# Threads that wait for one another sleep instead of spinning: on a busy CPU far faster.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help setup demo test test-rotated bench lint coverage format docs clean

help:
	@echo 'make demo    set up, detect in real images, make toy data, train SNIPER, evaluate, draw'
	@echo 'make test    set up, lint, run the tests'
	@echo 'make test-rotated  set up the maintained fork, run the tests of rotated boxes'
	@echo 'make lint    check style and types'
	@echo 'make coverage  run the tests, and fail if they run less than 95 % of the lines'
	@echo 'make bench   set up, measure in short what is fast, say what got slower; under 10 minutes'
	@echo 'make setup   set up $(VENV) only'
	@echo 'make format  put the code in the shape that make test asks for'
	@echo 'make docs    build the documentation as a site, in site/index.html'
	@echo 'make clean   remove the environments and what the set-up kept'
	@echo
	@echo 'STACK=NAME         official: OpenMMLab'"'"'s own packages; oldest: the oldest versions of them that'
	@echo '                   are tested; onedl: the maintained fork [$(STACK)]'
	@echo 'TORCH=REQUIREMENT  another torch than that of the stack; prebuilt: the newest that needs no'
	@echo '                   compiling of mmcv. Asked for once, it is kept'
	@echo 'PYTHON=PROGRAM     which Python makes the environment [$(PYTHON)]'
	@echo 'WORKERS=N          processes of make test [$(WORKERS)]'
	@echo 'DEMO_ARGS="..."    arguments of tools/demo.py'
	@echo 'BENCH_ARGS="..."   arguments of benchmarks/bench.py'

setup:
	@$(PYTHON) tools/dev/setup_venv.py --venv '$(VENV)' --stack '$(STACK)' --torch '$(TORCH)'

demo: setup
	$(PY) tools/demo.py $(DEMO_ARGS)

test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) $(PYTEST_ARGS)

# MMRotate of OpenMMLab goes with no MMDetection that we support.
test-rotated: STACK = onedl
test-rotated: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) $(PYTEST_ARGS) -k rotated tests/rotated tests/test_doc_snippets.py

bench: setup
	$(PY) benchmarks/bench.py $(BENCH_ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(if $(filter official,$(STACK)),$(PY) -m mypy)

coverage: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --cov --cov-report=term --cov-fail-under=95 $(PYTEST_ARGS)

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# An environment of its own: nothing is imported, so that it needs no torch and takes seconds.
docs:
	@test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip --disable-pip-version-check install --quiet \
		-r requirements/docs.txt -c requirements/constraints.txt
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --strict

clean:
	rm -rf .venv .venv-oldest .venv-onedl $(DOCS_VENV) .cache build site *.egg-info
