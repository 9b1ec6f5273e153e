# Targets for users and developers; see README.md. Each installs what it needs and does so once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Debian packages of the real clients and servers that the tests and benchmarks talk to.
TEST_PACKAGES := dovecot-imapd dovecot-pop3d postfix curl isync getmail6 fetchmail offlineimap3 mutt neomutt tmux openssl ca-certificates pebble chromium
BENCH_PACKAGES := dovecot-imapd
# Servers that Debian does not install beside those above: unpacked into a root of their own, each group as if alone.
UNPACKED_PACKAGES := "dash tzdata courier-imap courier-pop courier-authlib-userdb" "exim4-daemon-light" \
  "cyrus-imapd cyrus-pop3d sasl2-bin libsasl2-modules libsasl2-modules-db"

.PHONY: demo install scan test bench lint docs clean test-packages

demo: install
	$(BIN)/letterlock demo

install: $(VENV)/.installed

# sslyze cannot share our environment: docs/decisions/0005-sslyze-as-a-program.md
scan: .venv-scan/.installed

test: $(VENV)/.installed-dev test-packages scan
	LETTERLOCK_REQUIRE_PROGRAMS=1 $(BIN)/python -m pytest -q $(PYTEST_ARGS)

bench: $(VENV)/.installed-bench
	@tools/debian-packages $(BENCH_PACKAGES)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check letterlock tests benchmarks
	$(BIN)/ruff check letterlock tests benchmarks
	$(BIN)/mypy
	$(BIN)/python tools/large_rooms.py
	$(BIN)/python tools/generate_docs.py check

docs: $(VENV)/.installed-dev
	$(BIN)/python tools/generate_docs.py write
	$(BIN)/python tools/shell_session.py write docs/shell.md tests/transcripts/exchange.txt

test-packages: | $(VENV)/bin/python
	@tools/debian-packages $(TEST_PACKAGES)
	@tools/debian-unpacked $(VENV)/peers $(UNPACKED_PACKAGES)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "letterlock needs Python 3.11 or newer; '$(PYTHON)' is older (set PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || tools/debian-packages python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv-scan/.installed: constraints-scan.txt | $(VENV)/bin/python
	$(BIN)/python -m venv .venv-scan
	.venv-scan/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-scan.txt 'sslyze>=6.3,<7'
	@touch $@

clean:
	rm -rf $(VENV) .venv-scan build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
