# Targets for people who work on the addon (or try it): everything is installed on the first run.
# The virtual environment lives outside of the checkout, because g.extension copies the whole folder.

CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/i.ann.maskrcnn
VENV ?= $(CACHE)/venv
PYTHON ?= /usr/bin/python3
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
GRASS_PACKAGES = grass-core grass-dev python3-venv make gcc subversion git

# Names that change with the content of the requirements, so that an old environment is brought up to date
stamp = $(VENV)/.$(1)-$(shell cat $(2) | sha256sum | cut -c1-16)
DEMO_READY := $(call stamp,demo,requirements-demo.txt)
TEST_READY := $(call stamp,test,requirements-demo.txt requirements-test.txt)

export PATH := $(VENV)/bin:$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 2
export JAX_COMPILATION_CACHE_DIR ?= $(CACHE)/jax

.PHONY: demo test bench bench-detection bench-imported bench-training bench-scaling bench-overhead study-frameworks \
  study-scaling study-architectures grass lint

demo: grass $(DEMO_READY)
	python demo/run.py

# The network's own tests, which run on every backend
NETWORK_TESTS = $(addprefix tests/test_,boxes.py detections.py legacy_numbers.py legacy_training.py losses.py \
  memory.py network.py nms.py proposals.py roi_pooling.py targets.py)
# Tests of what holds on all backends, and takes longest where graphs are compiled
UNCOMPILED_TESTS = $(addprefix tests/test_,classifier_stages.py foreign_numbers.py pytorch.py training.py \
  unet_training.py)
# files go to the two workers in the order of tests/conftest.py: the slowest first
PYTEST = python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder \
  --durations=10 --durations-min=1 $(PYTEST_ARGS)

test: grass $(TEST_READY) lint
	KERAS_BACKEND=jax $(PYTEST) $(NETWORK_TESTS)
	KERAS_BACKEND=torch $(PYTEST) $(NETWORK_TESTS) $(UNCOMPILED_TESTS)
	$(PYTEST) $(addprefix --ignore=,$(UNCOMPILED_TESTS))

# bench-scaling takes longer than all of them: it is asked for by name
bench: bench-detection bench-imported bench-training bench-overhead

bench-detection bench-imported bench-training bench-scaling bench-overhead: bench-%: $(TEST_READY)
	python benchmarks/$*.py $(BENCH_ARGS)

study-frameworks study-scaling: study-%: $(TEST_READY)
	python benchmarks/studies.py $* $(STUDY_ARGS)

study-architectures: $(TEST_READY)
	python benchmarks/architectures.py $(STUDY_ARGS)

lint: $(TEST_READY)
	ruff check .
	ruff format --check .

grass:
	@command -v grass >/dev/null && [ -e "$$(grass --config path)/include/Make/Module.make" ] \
	  && $(PYTHON) -c "import ensurepip" 2>/dev/null && command -v svn >/dev/null && command -v gcc >/dev/null && command -v git >/dev/null \
	  || { $(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	       apt-get install -y --no-install-recommends $(GRASS_PACKAGES); }

$(DEMO_READY): requirements-demo.txt | grass
	[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	python -m pip install --quiet -r requirements-demo.txt
	touch $@

$(TEST_READY): requirements-test.txt $(DEMO_READY)
	python -m pip install --quiet -r requirements-test.txt
	touch $@
