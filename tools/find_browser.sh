#!/usr/bin/env bash
# See that there is a Chromium for the browser tests: install Debian's where that can be done, else say what to do.
set -eu
if [ "${BROWSER_TESTS:-yes}" = no ]; then
  echo "BROWSER_TESTS=no: the tests that need a Chromium are left out."
  exit 0
fi
found() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
if found >/dev/null; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian's chromium for the browser tests"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null || true
fi
if ! found >/dev/null; then
  echo "error: the browser tests need chromium or google-chrome on PATH. Install one (Debian, Ubuntu: sudo apt-get" >&2
  echo "       install chromium), or leave these tests out with BROWSER_TESTS=no, as in: make test BROWSER_TESTS=no" >&2
  exit 1
fi
