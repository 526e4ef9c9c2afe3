#!/usr/bin/env bash
# One call from the repository's root on a machine with a GPU: `bench/gpu_check.sh 1`, then `bench/gpu_check.sh 2`.
# PYTHON: which one (default: .venv's, else python3). OUT: where results and logs go. COMMIT: where there is no .git.
set -euo pipefail
cd "$(dirname "$0")/.."
# What `make gpu-check` built elsewhere. The old file goes first: a process that runs on it keeps it.
if [ -f build/gpu_carry/discrete_ops/build.json ]; then
  cp --remove-destination build/gpu_carry/discrete_ops/{lib*.so,build.json} discrete_ops/
fi
[ -e discrete_ops/triton_kernels ] || ln -s ../triton_kernels discrete_ops/triton_kernels  # where a wheel has it
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PATH="$PATH:/usr/local/cuda/bin"
exec "${PYTHON:-$python}" -m bench.gpu "$@"
