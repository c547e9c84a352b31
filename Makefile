# `make help` says what there is. Every target that needs the virtual environment makes it first.

VENV := .venv
# Which Python to build it from; empty: chosen by scripts/setup_env.py.
PYTHON ?=
export PYTHON
# The set-up itself runs on any Python 3.8 or newer.
SETUP_PYTHON := $(or $(PYTHON),$(shell command -v python3 || command -v python3.12 || command -v python3.11 || command -v python3.10))
IN_VENV := . $(VENV)/env.sh &&

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak lint clean

help: ## Show this help.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)
	@echo
	@echo '  PYTHON=...            which Python (3.10 to 3.12) the virtual environment uses'
	@echo '  TORCH_INDEX_URL=...   where PyTorch comes from. Its default build brings CUDA and is large; for a'
	@echo '                        CPU build give the CPU index that pytorch.org names under "Get Started".'

setup: ## Create or update .venv; takes seconds when nothing changed.
ifeq ($(SETUP_PYTHON),)
	@echo 'No python3 found: sudo apt-get install python3 python3-venv python3-dev' >&2; exit 1
endif
	@$(SETUP_PYTHON) scripts/setup_env.py

demo: setup ## Run the main job on synthetic data: camera, node and recorder.
	$(VENV)/bin/depthlm demo

lint: setup ## Style, format and types.
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) mypy

# Two processes: one for the tests of running nodes, which wait most of the time, and one for the others; in the order of
# the files, which has the longest first. One thread:
# torch threads that wait for a core cost more than they bring.
test: lint ## Run all checks and tests.
	$(IN_VENV) DEPTHLM_REQUIRE_ROS=1 OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

soak: setup ## The long forms of two tests: ten minutes at full load, and a watched start of 30 s.
	$(IN_VENV) DEPTHLM_REQUIRE_ROS=1 DEPTHLM_SOAK_S=600 DEPTHLM_STARTUP_S=30 python -m pytest -s test/ros/test_soak.py test/ros/test_reliability.py

clean: ## Remove .venv and everything that was built.
	rm -rf $(VENV) build install log .mypy_cache .ruff_cache .pytest_cache
