# Everything is set up by `make demo` and `make test` themselves; needs Linux, make, Python 3.11+.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
export P2PDIST_DEMO_STARTED := $(shell date +%s.%N)

# Free space that the demonstration needs in TMPDIR; less does for a smaller ARGS='--size-mb N'.
DEMO_FREE_MB ?= 3000

.PHONY: demo preflight test lint unit unit-busy e2e test-compose test-installs test-helm mutants-helm test-ansible test-first-hour test-docker-store test-equality fmt bench bench-swarm bench-lazy bench-prewarm bench-scale bench-sim bench-truth sim-guards storms bench-cores bench-access faults mutants lock clean
# The steps of a target follow each other, whatever -j says: they share the environment and the cores.
.NOTPARALLEL:

demo: preflight $(VENV)/runtime.stamp
	$(BIN)/python -m p2pdist.cli.main demo $(ARGS)

preflight:
	@sh p2pdist/demo/preflight.sh $(VENV) $(DEMO_FREE_MB)

test: lint unit e2e

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Three at a time on two cores: half of the tests wait for what real daemons wait for.
unit: $(VENV)/dev.stamp
	$(PYTEST) -n 3 --ignore=tests/e2e --ignore=tests/compose --ignore=tests/first_hour --ignore=tests/docker_store --ignore=tests/equality --ignore=tests/helm --ignore=tests/ansible

# The unit suite RUNS times with every core busy beside it; less of it with ARGS='-n 2 tests/cluster'.
RUNS ?= 20
unit-busy: $(VENV)/dev.stamp
	$(BIN)/python -m tests.busy $(RUNS) $(ARGS)

# Those that measure nothing and often wait run three files at a time on two cores.
BY_THEMSELVES := $(addprefix tests/e2e/streaming/test_,rates.py kills.py)
SHARING := $(filter-out $(BY_THEMSELVES),$(wildcard tests/e2e/streaming/test_*.py)) \
	$(patsubst %,tests/e2e/test_%.py,man_pages completion error_texts engines five_clients many_registries direct_fallback) \
	$(patsubst %,tests/e2e/test_%.py,prewarm notifications stalls restart docker_swarm lab) \
	$(patsubst %,tests/e2e/faults/test_%.py,full_disk really_full_disk killed_at_failpoints descriptors)

# Without P2PDIST_REQUIRE_E2E=1 this says what did not run; with it, missing parts fail.
e2e: $(VENV)/dev.stamp
ifeq ($(P2PDIST_REQUIRE_E2E),1)
	tests/e2e/install_packages.sh
	$(PYTEST) -n 3 --dist loadfile $(SHARING) --timeout=600
	$(PYTEST) tests/e2e $(addprefix --ignore=,$(SHARING)) --timeout=600
else
	@echo
	@echo "not run: e2e (real dockerd and docker-registry; needs root and Debian packages)"
	@echo "to run:  P2PDIST_REQUIRE_E2E=1 make test"
endif

# The image and docker-compose.yml on a dockerd of their own; needs root and Debian packages.
test-compose: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh docker-compose debootstrap
	P2PDIST_REQUIRE_E2E=1 $(PYTEST) tests/compose --timeout=1200

# The compose file and the first hour, two at a time: each has a network and roots of its own.
test-installs: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh docker-compose debootstrap
	P2PDIST_REQUIRE_E2E=1 $(PYTEST) -n 2 --dist loadfile tests/compose tests/first_hour --timeout=1200

# Real images, file by file as containerd and umoci unpack them (10 minutes the first time); needs root,
# Debian packages and the package index of Debian.
test-equality: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh debootstrap
	P2PDIST_REQUIRE_E2E=1 $(PYTEST) tests/equality --timeout=1800

# The chart with real helm and kubeconform, which are built from Go modules at the first run; with
# mutants-helm what the tests make of mistakes in it (a minute and a half, and not in .ci/run).
test-helm mutants-helm: $(VENV)/dev.stamp
ifneq ($(shell command -v go),)
	sh tests/helm/install_tools.sh $(VENV)/helm
	$(PYTEST) $(if $(filter mutants-helm,$@),tests/helm/test_mutants.py,-n 2 tests/helm --ignore=tests/helm/test_mutants.py) --timeout=120
else
	@echo
	@echo "not run: helm (needs Go, which builds helm and kubeconform)"
endif

# The playbooks on hosts that are mounts, processes and networks of their own; needs root and iproute2.
test-ansible: $(VENV)/dev.stamp
	@$(MAKE) --no-print-directory $(VENV)/ansible.stamp || echo "ansible-core could not be installed"
	$(PYTEST) tests/ansible --timeout=300

$(VENV)/ansible.stamp: tests/ansible/requirements.txt
	$(BIN)/python -m venv $(VENV)/ansible
	$(VENV)/ansible/bin/pip install --quiet --disable-pip-version-check -r tests/ansible/requirements.txt
	@touch $@

# The commands of README.md and docs/install.md in a root that debootstrap made: of DEBIAN=trixie
# and DEBIAN=noble as well; needs root, Debian packages, the package indexes of Debian and Python.
DEBIAN ?= bookworm
test-first-hour: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh debootstrap
	P2PDIST_REQUIRE_E2E=1 P2PDIST_DEBIAN=$(DEBIAN) $(PYTEST) tests/first_hour --timeout=900

# Docker with containerd's store, and containerd's CRI, as Debian SUITE=trixie (or sid) has them, in a
# root that debootstrap makes once (100 MB to fetch); needs root and Debian packages.
SUITE ?= trixie
test-docker-store: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh debootstrap
	tests/docker_store/make_root.sh $(SUITE) build/docker_store
	P2PDIST_REQUIRE_E2E=1 TESTS_ENGINES=$(CURDIR)/build/docker_store/$(SUITE) \
		$(PYTEST) tests/docker_store tests/e2e/streaming/test_snapshotter.py --timeout=300

fmt: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every row of the catalogue of faults (docs/faults.md), then what each showed; needs root and Debian packages.
faults: $(VENV)/dev.stamp $(VENV)/ansible.stamp
	tests/e2e/install_packages.sh
	rm -rf build/faults
	P2PDIST_REQUIRE_E2E=1 $(PYTEST) -m faults --ignore=tests/compose --ignore=tests/first_hour --ignore=tests/docker_store --ignore=tests/equality --ignore=tests/helm --ignore=tests/ansible --timeout=300
	P2PDIST_REQUIRE_E2E=1 $(PYTEST) tests/faults tests/e2e/faults --timeout=300
ifneq ($(shell command -v go),)
	sh tests/helm/install_tools.sh $(VENV)/helm
	$(PYTEST) tests/helm -m faults --timeout=120
endif
	P2PDIST_REQUIRE_E2E=1 $(PYTEST) tests/ansible --timeout=300
	$(BIN)/python -m tests.faults.table

# Mistakes in decisive lines (tests/mutants/catalogue.toml), each of which the nearest tests must notice.
mutants: $(VENV)/dev.stamp
	$(BIN)/python -m tests.mutants --jobs 2 $(ARGS)

bench: $(VENV)/dev.stamp
	$(BIN)/python -m bench

# Eight hosts on limited links, beside aria2 and libtorrent, and a mirror beside nginx;
# needs root and Debian packages.
bench-swarm: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh aria2 python3-libtorrent nginx-light curl
	$(BIN)/python -m bench.swarm $(ARGS)

# Containers that start from an image which their host has not (3 minutes, the first time 5); needs root
# and Debian packages.
bench-lazy: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh debootstrap
	$(BIN)/python -m bench.lazy $(ARGS)

# 10,000 simulated hosts against a real tracker; needs 20,000 descriptors.
bench-prewarm: $(VENV)/dev.stamp
	$(BIN)/python -m bench.prewarm $(ARGS)

# Links of a proxy; memory, pauses and storms of a tracker with up to 15,000 hosts; needs root and 20,000 descriptors.
bench-scale: $(VENV)/dev.stamp
	$(BIN)/python -m bench.scale $(ARGS)

# Small versions of the scenarios of bench-sim, held to the bounds of tests/sim/guards.toml; part of `unit`.
sim-guards: $(VENV)/dev.stamp
	$(PYTEST) -n 2 tests/sim/test_guards.py

# Whole fleets in one process: the daemons' cores on simulated network cards.
bench-sim: $(VENV)/dev.stamp
	$(BIN)/python -m bench.sim $(ARGS)

# A thousand small fleets with random faults, each core held to its invariants after every event
# (under an hour on two cores): for each night; each seed that does harm becomes a test.
storms: $(VENV)/dev.stamp
	$(BIN)/python -m bench.sim --storms $(or $(SEEDS),1000)

# The same hosts real and simulated, and how far apart they are (10 minutes); needs root and Debian packages.
bench-truth: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh
	$(BIN)/python -m bench.truth $(ARGS)

# What the cores of one host cost per chunk, alone (1 minute).
bench-cores: $(VENV)/dev.stamp
	$(BIN)/python -m bench.cores $(ARGS)

# Who may read what, from a private registry and through the mirrors (4 minutes); needs root and Debian packages.
bench-access: $(VENV)/dev.stamp
	tests/e2e/install_packages.sh
	$(BIN)/python -m bench.access $(ARGS)

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The versions and hashes that image and demonstration install, for every Python and processor that
# this runs on: the newest ones within the ranges of pyproject.toml.
UV := $(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
lock: $(VENV)/lock.stamp
	$(UV) pyproject.toml --output-file requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(UV) - --output-file requirements-build.lock

$(VENV)/lock.stamp:
	@sh p2pdist/demo/preflight.sh $(VENV)
	$(BIN)/python -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'
	@touch $@

# Builds with the backend that is locked, in place of one that is fetched for each build.
$(VENV)/runtime.stamp: pyproject.toml requirements.lock requirements-build.lock
	@sh p2pdist/demo/preflight.sh $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.lock -r requirements-build.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# What is tested is what is locked; the tools beside it are the newest.
$(VENV)/dev.stamp: $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[dev]'
	@touch $@
