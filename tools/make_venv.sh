#!/usr/bin/env bash
# Make the virtual environment $1 with a Python that the package supports, unless it is there already.
set -eu
venv=$1
supported='import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))'

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$supported"; then
  exit 0
fi
for python in python3 python3.12 python3.11; do
  if "$python" -c "$supported" 2>/dev/null; then
    echo "Making $venv with $("$python" --version)"
    if ! "$python" -m venv --clear "$venv"; then
      echo "error: '$python -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2
      exit 1
    fi
    exit 0
  fi
done
echo "error: starscape needs Python 3.11 or 3.12, and none of python3, python3.12, python3.11 on PATH is one." >&2
exit 1
