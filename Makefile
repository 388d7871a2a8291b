# What one does here. Every target makes the virtual environment first if it is missing or the lock has changed.

PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
UV := 0.13.9
NOT_ON_CPU := $(shell sed -n 's/^\(nvidia-[a-z0-9-]*\|cuda-[a-z]*\|triton\)==.*/--no-emit-package \1/p' requirements.lock)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
TAG := $(VERSION)-$(COMMIT)
IMAGE_ARGS := --build-arg VERSION=$(VERSION) --build-arg REVISION=$(COMMIT)
# for the first 3.11: it needs what later ones need, and a little more
COMPILE := $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make locks"

unexport PYTHONDONTWRITEBYTECODE  # hundreds of processes are started here: what they import is compiled once

.PHONY: help demo demo-video test lint mutants bench faults sanitize images cluster-test sbom locks
help:
	@sed -n 's/^\([a-z-]*\): .*## /\1  /p' Makefile

$(STAMP): requirements.lock pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

demo: $(STAMP) ## learn from a real grocery's year, then answer: metrics, a list with reasons, before and after a click
	$(BIN)/python -m pipelines.demo

demo-video: $(STAMP) ## make a video platform whose truth is known, learn it, let it live a day under what was learnt: watch time against the best there is
	$(BIN)/python -m pipelines.demo_video

test: $(STAMP) ## the tests, but the slow ones and those that need a Docker engine
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not docker and not cluster and not slow and not cost"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "cost and not slow and not cluster"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants --each 2 --jobs 2 --seconds 60
	SPOILT_EXAMPLES=15 $(MAKE) sanitize

lint: $(STAMP) ## style, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: $(STAMP) ## small faults put into the modules that decide: which do their tests not notice? A few are tried by `make test`
	OMP_NUM_THREADS=1 nice -n 10 $(BIN)/python -m tests.mutants --jobs 2

bench: $(STAMP) ## the server under a constant arrival rate, beside the naive build
	$(BIN)/python -m tests.bench

faults: $(STAMP) ## every fault and every pair of faults on running servers under load; prints what was answered
	$(BIN)/python -m tests.serving.faults

sanitize: $(STAMP) ## the compiled loops under ASan and UBSan: their tests, and frames, states and arrays spoilt at random
	rm -rf build/sanitize && mkdir -p build/sanitize && cp -r feature_repo serving components pipelines build/sanitize/
	CFLAGS="-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
	$(BIN)/python setup.py -q build_ext --force --build-lib build/sanitize --build-temp build/sanitize-c
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 \
	$(BIN)/python -P -m pytest -x -p no:cacheprovider -o "pythonpath=build/sanitize ." tests/serving/native

images: $(STAMP) ## the two images: one that learns (a pipeline's steps), one that answers
	docker build --network host $(IMAGE_ARGS) -f components/Dockerfile -t dev.local/shortlist-python:$(VERSION) -t dev.local/shortlist-python:$(TAG) .
	docker build --network host $(IMAGE_ARGS) -f serving/Dockerfile -t dev.local/shortlist-serving:$(VERSION) -t dev.local/shortlist-serving:$(TAG) .

cluster-test: $(STAMP) ## what only a cluster shows, on the one kubectl points to; brings one up where there is none
	$(BIN)/shortlist up shop --platform skip || $(BIN)/shortlist up shop
	$(BIN)/python -m pytest -m cluster tests/cluster

sbom: $(STAMP) ## what the two images install, with versions and hashes, as CycloneDX documents under dist/
	mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o dist/shortlist-python.cdx.json components/requirements.lock
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o dist/shortlist-serving.cdx.json serving/requirements.lock

locks: ## resolve again after a change in pyproject.toml
	$(COMPILE) pyproject.toml --all-extras -o requirements.lock
	$(COMPILE) pyproject.toml --extra learn -c requirements.lock $(NOT_ON_CPU) -o components/requirements.lock
	$(COMPILE) pyproject.toml -c requirements.lock -o serving/requirements.lock
