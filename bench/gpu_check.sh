#!/usr/bin/env bash
# One call on a machine with a GPU, from the repository's root, with the libraries carried there: gpu_check.sh 1, then 2.
# PYTHON: which one (default: .venv's, else python3). OUT: where results and logs go. COMMIT: where there is no .git.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -e discrete_ops/triton_kernels ] || ln -s ../triton_kernels discrete_ops/triton_kernels  # as an installation has it
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "$python" -m bench.gpu "$@"
