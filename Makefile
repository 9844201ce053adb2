# Everything that one does with this book. `make book` on a fresh clone is enough: it sets up .venv, compiles somoclu,
# executes the chapters and writes _build/html/index.html. The next `make book` repeats only what has changed.
#
#   PYTHON=python3.12   the interpreter that .venv is made with (3.11 or newer)
#   TORCH=cpu           take PyTorch's CPU wheels (0.2 GB) instead of the CUDA ones (3 GB to load, 5 GB on disk);
#                       .venv remembers the choice, TORCH=cuda changes it back. Linux and Windows; PyPI's wheels for
#                       macOS have no CUDA to begin with.
#   CUDA_HOME=/path     `make gpu` takes that CUDA (12 or 13) instead of a compiler from PyPI

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip
TORCH ?= $(or $(patsubst $(VENV)/.torch-%,%,$(wildcard $(VENV)/.torch-*)),cuda)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# The stamp bears the checksum of what was installed: another requirements.txt, and the stamp is another file.
STAMP := $(VENV)/.installed-$(shell cksum < requirements.txt | tr -c '0-9\n' -)-$(TORCH)
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

# Chapters run in this environment's own kernel, whatever kernels the reader has registered elsewhere.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH
# Two test processes with as many threads each as there are cores would fight over them.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup book offline browser cover test lint pytest nbval bench lab doctor gpu clean

help:  ## this list
	@awk -F ':.*##' '/^[a-z]+:.*##/ {printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## .venv with everything in requirements.txt, and somoclu compiled and tried
	@$(PY) nfcodes_lib/somoclu_build.py cpu

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "expected Python 3.11 or newer, got %d.%d; name one with PYTHON=..." % sys.version_info[:2])'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install $$(grep -E '^(numpy|setuptools|wheel|scipy|matplotlib)==' requirements.txt)
	$(PY) nfcodes_lib/somoclu_build.py cpu
	test $(TORCH) = cpu || ! test -e $(VENV)/.torch-cpu || $(PIP) uninstall --yes torch torchvision
	test $(TORCH) = cuda || $(PIP) install --no-deps --index-url $(TORCH_CPU_INDEX) $$(grep -E '^(torch|torchvision)==' requirements.txt | sed 's/$$/+cpu/')
	$(PIP) install --requirement requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/.installed-* $(VENV)/.torch-*
	touch $(VENV)/.torch-$(TORCH) $@

book: setup  ## execute the chapters that changed, write _build/html/index.html
	$(PY) -P nfcodes_lib/build_book.py

cover: setup  ## draw the figure of the introduction and the README again
	$(PY) -P book/make_cover.py

offline: book  ## the whole book as one zip: unpack it anywhere, open html/index.html, no server and no network
	cd _build && $(abspath $(PY)) -m zipfile -c book.zip html && ls -sh book.zip

browser: book  ## every page and explorer in Chromium; pictures of them in _build/screenshots
	$(ONE_THREAD) $(PY) -m pytest -n 2 --dist loadfile -q tests/browser

test: lint pytest nbval browser  ## what CI runs: lint, tests, every chapter's recorded output, the book in a browser

lint: setup  ## ruff over code and notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

pytest: setup  ## the tests and the examples in docstrings
	$(ONE_THREAD) $(PY) -m pytest -n 2 --dist loadfile --ignore=tests/benchmarks --ignore=tests/browser tests nfcodes_lib

nbval: setup  ## execute the chapters, compare the cells marked NBVAL_CHECK_OUTPUT with their recorded output; the book takes over the outputs
	$(if $(NOTEBOOKS),$(ONE_THREAD) TQDM_DISABLE=1 $(PY) -m pytest -n 2 --dist loadfile -p nfcodes_lib.nbval_outputs --nbval-lax --nbval-current-env notebooks)

bench: setup  ## time capture and the map trainings beside their peers (half an hour; results are printed)
	$(PY) -m pytest -s -q tests/benchmarks/bench_capture.py
	$(PY) tests/benchmarks/bench_som.py --rounds 3

lab: setup  ## open the chapters in JupyterLab
	$(PY) -m jupyterlab notebooks

doctor:  ## report what works on this machine, and how to mend what does not
	@$(if $(wildcard $(PY)),$(PY),$(PYTHON)) -m nfcodes_lib

gpu: setup  ## compile somoclu's GPU kernel too, and try it
	$(PY) nfcodes_lib/somoclu_build.py gpu

clean:  ## remove what was built, keep .venv (delete that folder by hand)
	rm -rf _build build *.egg-info .pytest_cache .ruff_cache .benchmarks
	find nfcodes_lib tests notebooks -name '__pycache__' -prune -exec rm -rf {} +
