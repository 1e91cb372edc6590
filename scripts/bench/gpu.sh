#!/usr/bin/env bash
# Speed of acting and training on a bare machine with one GPU, in at most 9 minutes: installs into .venv-bench, measures,
# writes one JSON. The file is $OUT/gpu.json, or the first argument. What is measured: python scripts/bench/gpu.py --help
#   bash scripts/bench/gpu.sh gpu.json
#   bash scripts/bench/gpu.sh --tiny gpu.json     # a tiny model on the CPU; RLPRM_VENV names an environment that is there
set -euo pipefail
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
fi
tiny=""
[ "${1:-}" = --tiny ] && { tiny=--tiny; shift; }
file="${1:-${OUT:+$OUT/gpu.json}}"
[ -n "$file" ] || { echo "gpu.sh: set OUT, or give the path of the JSON" >&2; exit 2; }
[ -n "$tiny" ] || nvidia-smi > /dev/null 2>&1 || { echo "gpu.sh: there is no GPU; --tiny runs without one" >&2; exit 2; }
file="$(realpath -m "$file")"
export RLPRM_VENV="${RLPRM_VENV:-.venv-bench}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
[ -x "$PYTHON" ] && "$PYTHON" -c 'import rlprm, torch' 2> /dev/null || install "[deepspeed]"
export PYTHONPATH=.
without=""
if [ -n "$tiny" ]; then
    without="not measured with the tiny model"
else  # which wants other versions of shared packages, and so has an environment of its own
    timeout $((SECONDS < 260 ? 270 - SECONDS : 10)) bash scripts/install_vllm.sh > /dev/null 2>&1 \
        || without="vllm could not be installed (bash scripts/install_vllm.sh)"
fi
"$PYTHON" scripts/bench/gpu.py $tiny --output "$file" --without_vllm "$without" --seconds $((530 - SECONDS))
