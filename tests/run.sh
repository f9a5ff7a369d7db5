#!/usr/bin/env bash
# Sets everything up in .venv (the first time a few minutes, mostly PyTorch), then runs the tests.
# Arguments are pytest's: bash tests/run.sh tests/unit -k guards
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash .ci/setup .venv "torch==2.13.0" "--editable .[langchain,llamaindex,offline,sentence-transformers] --group test"
.venv/bin/python -m aicache.prepare
exec .venv/bin/python -m pytest "$@"
