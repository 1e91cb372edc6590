#!/usr/bin/env bash
# Lint, types and tests. Arguments are passed on to pytest:  bash scripts/test.sh -m "not slow" -k beam
source "$(dirname "$0")/_common.sh"
install "[dev,deepspeed]"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 WANDB_MODE=offline
# One thread per test process: several threads in each would fight for the same cores.
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" -m pytest --numprocesses auto --dist worksteal "$@"
