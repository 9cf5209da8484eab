#!/bin/sh
# closed_loop_test.sh: the figures of benchmarks/closed_loop, where there is a Python.
set -eu
if ! command -v python3 >/dev/null; then
  echo "SKIPPED: no python3"
  exit 77
fi
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$(dirname "$0")/closed_loop_test.py"
