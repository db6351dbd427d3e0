# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. ARGS=... is handed on to the tool behind test, bench, soak, run and lock.

# Tests start the product hundreds of times: it is compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

# The distribution's own, if it is not too old: it is built for speed, which those that version managers compile rarely
# are, and what runs here takes a quarter longer with them.
ifndef PYTHON
PYTHON := $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
    echo /usr/bin/python3 || echo python3)
endif
DATA ?= $(HOME)/.local/share/glancefs
MOUNT ?= $(HOME)/glancefs
VENV := .venv
BIN := $(VENV)/bin
CODE := glancefs gateway mount_helpers tests
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# pyfuse3 and WsgiDAV come as source, built with what requirements-build.lock put there, not with what pip would choose.
PINNED = $(PIP) install --require-hashes --no-build-isolation --only-binary :all: --no-binary pyfuse3,wsgidav --requirement $(1)

# What pyfuse3 is built with, and what mounts for users who are not root.
MOUNT_PACKAGES := fuse3 gcc libfuse3-dev pkg-config python3-dev

# What the tests use of Debian. Elsewhere, what is absent is skipped, and the head of the test run says so.
TEST_PACKAGES := attr btrfs-progs cadaver curl davfs2 dbus debian-installer-12-netboot-amd64 fio git grub-rescue-pc \
    gvfs-backends iproute2 libglib2.0-bin litmus man-db mandoc mariadb-client mariadb-server-core openssl qemu-system-x86 \
    qemu-utils rclone rsync stress-ng systemd vim-tiny xfsprogs xorriso
# PostgreSQL's server is unpacked here, not installed, so that none starts on this machine; these are what it is linked to.
POSTGRESQL := .cache/postgresql/usr/lib/postgresql/15/bin/pg_dump
POSTGRESQL_PACKAGES := libgssapi-krb5-2 libicu72 libldap-2.5-0 libpq5 libxml2
# And HAProxy in the same way.
HAPROXY := .cache/haproxy/usr/sbin/haproxy
HAPROXY_PACKAGES := liblua5.3-0 libopentracing-c-wrapper0
# What the benchmarks use besides: generators of load, and a way to switch syncing off.
BENCH_PACKAGES := apache2-utils bindfs eatmydata wrk
# The peers of the benchmarks are unpacked here, not installed, so that no web server starts on this machine.
BENCH_PEERS := .cache/nginx/.unpacked .cache/apache/.unpacked

# The Keystone that the tests start lives in an environment of its own, since it pins what we do not.
KEYSTONE := .cache/keystone
# And so does their Swift.
SWIFT := .cache/swift

# $(call apt,PACKAGES): install Debian packages as root or through sudo; one plain sentence where that cannot be.
apt = { command -v apt-get >/dev/null || { echo "Please install $(1): this machine has no apt-get." >&2; false; }; } && \
      { [ "$$(id -u)" = 0 ] && sudo= || sudo=$$(command -v sudo) || \
        { echo "Please install $(1) as root: this machine has no sudo." >&2; false; }; } && \
      { echo "Installing $(1)"; install="env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends"; \
        $$sudo $$install $(1) >/dev/null 2>&1 || \
        { $$sudo apt-get update -qq && $$sudo $$install $(1) >/dev/null; } || \
        { echo "Please install $(1): apt-get could not." >&2; false; }; }

.DEFAULT_GOAL := help
.PHONY: help setup setup-test mount-packages test-packages bench-packages run test lint format bench soak man lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(VENV)/.run ## make .venv with what running takes
	@echo 'Ready: "make run" serves images.'

setup-test: $(VENV)/.test $(KEYSTONE)/.made $(SWIFT)/.made test-packages ## add what the tests take

run: $(VENV)/.run ## serve images from DATA, by default ~/.local/share/glancefs, and show them as files in MOUNT, ~/glancefs
	@exec $(BIN)/glancefs up --data "$(DATA)" $(ARGS) "$(MOUNT)"

test: lint ## lint, then run the tests: make test ARGS="tests/unit -x"
	@$(BIN)/pytest -n auto $(ARGS)

lint: setup-test ## ruff, mypy and the import contracts
	@mkdir -p .cache
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/ruff format --quiet --check $(CODE) || { echo 'Not formatted; "make format" does it.' >&2; false; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >.cache/imports.txt 2>&1 || { cat .cache/imports.txt >&2; false; }

format: setup-test ## fix what ruff can fix
	@$(BIN)/ruff check --fix --quiet $(CODE); $(BIN)/ruff format $(CODE)

bench: setup-test bench-packages $(BENCH_PEERS) ## measure speed beside real peers
	@$(BIN)/pytest -m bench -s -o faulthandler_timeout=3600 $(ARGS) tests/bench

soak: setup-test ## run the tests that take minutes
	@$(BIN)/pytest -m soak $(ARGS)

man: setup-test ## make the manual pages of the documentation
	@$(BIN)/python -m tests.support.manual

lock: setup-test ## pin every package anew; ARGS=--upgrade takes the newest of each
	@$(PIP) install uv
	@compile="$(BIN)/uv --quiet pip compile --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate $(ARGS)"; \
	    $$compile pyproject.toml --extra mount --extra swift --extra s3 --extra keystone --extra postgresql --extra mariadb \
	        --extra test --group build \
	        --output-file requirements-test.lock && \
	    $$compile pyproject.toml --extra mount --extra swift --extra s3 --extra keystone --extra postgresql --extra mariadb \
	        --constraint requirements-test.lock --output-file requirements.lock && \
	    $$compile --group build --constraint requirements-test.lock --output-file requirements-build.lock && \
	    $$compile --group keystone-server --output-file requirements-keystone.lock && \
	    $$compile --group swift-server --output-file requirements-swift.lock

clean: ## remove everything that was made here
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { ! command -v $(PYTHON) >/dev/null && $(call apt,python3); } || { echo "$(PYTHON) is older than 3.11." >&2; false; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call apt,python3-venv); }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements-build.lock requirements.lock pyproject.toml | $(BIN)/python mount-packages
	@echo "Installing the packages of requirements.lock into $(VENV)"
	@$(call PINNED,requirements-build.lock)
	@$(call PINNED,requirements.lock)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: requirements-test.lock $(VENV)/.run
	@echo "Installing the packages of requirements-test.lock into $(VENV)"
	@$(call PINNED,requirements-test.lock)
	@touch $@

# Without it the tests on Keystone are skipped by name.
$(KEYSTONE)/.made: requirements-keystone.lock | $(BIN)/python
	@echo "Installing the packages of requirements-keystone.lock into $(KEYSTONE)"
	@{ $(BIN)/python -m venv --clear $(KEYSTONE) && $(KEYSTONE)/bin/python -m pip --disable-pip-version-check -qq install \
	    --require-hashes --only-binary :all: --requirement $< && touch $@; } || [ "$$CI" != true ]

# Without it the tests on Swift are skipped by name.
$(SWIFT)/.made: requirements-swift.lock | $(BIN)/python
	@echo "Installing the packages of requirements-swift.lock into $(SWIFT)"
	@{ $(BIN)/python -m venv --clear $(SWIFT) && $(SWIFT)/bin/python -m pip --disable-pip-version-check -qq install \
	    --require-hashes --only-binary :all: --requirement $< && touch $@; } || [ "$$CI" != true ]

mount-packages: | $(BIN)/python
	@{ pkg-config --exists fuse3 && command -v gcc && command -v fusermount3 && \
	    $(BIN)/python -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'; } >/dev/null 2>&1 || \
	    { $(call apt,$(MOUNT_PACKAGES)); }

# $(call install-missing,PACKAGES)
install-missing = missing=; for package in $(1); do \
	    dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; [ -z "$$missing" ] || { $(call apt,$$missing); }

# Missing tools stop no tests on a user's machine; they are skipped by name.
test-packages:
	@$(call install-missing,$(TEST_PACKAGES)) || [ "$$CI" != true ]
	@[ -e $(POSTGRESQL) ] || [ -e /usr/lib/postgresql/15/bin/postgres -a -e /usr/lib/postgresql/15/bin/pg_dump ] || $(MAKE) -s $(POSTGRESQL) || [ "$$CI" != true ]
	@[ -e $(HAPROXY) ] || [ -e /usr/sbin/haproxy ] || $(MAKE) -s $(HAPROXY) || [ "$$CI" != true ]

$(POSTGRESQL):
	@$(call install-missing,$(POSTGRESQL_PACKAGES))
	@mkdir -p .cache/postgresql && cd .cache/postgresql && apt-get download -qq postgresql-15 postgresql-client-15 2>/dev/null && \
	    for package in postgresql-*.deb; do dpkg-deb -x $$package . || exit; done

$(HAPROXY):
	@$(call install-missing,$(HAPROXY_PACKAGES))
	@mkdir -p .cache/haproxy && cd .cache/haproxy && apt-get download -qq haproxy 2>/dev/null && dpkg-deb -x haproxy_*.deb .

bench-packages:
	@$(call install-missing,$(BENCH_PACKAGES))

.cache/nginx/.unpacked: PACKAGES := nginx libnginx-mod-http-dav-ext
.cache/apache/.unpacked: PACKAGES := apache2-bin
$(BENCH_PEERS):
	@mkdir -p $(@D) && cd $(@D) && apt-get download -qq $(PACKAGES) 2>/dev/null && \
	    for package in *.deb; do dpkg-deb -x $$package . || exit; done && touch $(@F)
