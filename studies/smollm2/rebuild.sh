#!/usr/bin/env bash
# The policy of the page "A real pretrained model", its rollouts and both AgentPRMs, again from nothing.
#   bash studies/smollm2/rebuild.sh textcraft|arithmetic [ROOT]
# Two CPU cores, about an hour and a half (TextCraft) or half an hour (arithmetic). Run again, the script continues.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON="${PYTHON:-.venv/bin/python}"

case "${1:-}" in
    textcraft) recipes=recipes/textcraft ;;
    arithmetic) recipes=recipes/math ;;
    *) echo "usage: bash studies/smollm2/rebuild.sh textcraft|arithmetic [ROOT]" >&2; exit 2 ;;
esac
root="${2:-runs/$(basename "$recipes")_smollm2-135m}"

rlprm() { "$PYTHON" -m rlprm.cli "$@"; }
rlprm models get smollm2-135m
rlprm sft --config "$recipes/sft_smollm2-135m.yaml" --root "$root"
rlprm collect --config "$recipes/collect_smollm2-135m.yaml" --root "$root"
# One core each.
export OMP_NUM_THREADS=1
rlprm train-prm --config "$recipes/train_prm_smollm2-135m.yaml" --root "$root" &
scalar=$!
rlprm train-prm --config "$recipes/train_prm_smollm2-135m.yaml" --root "$root" --head lm --output_dir "$root/agentprm_lm"
wait "$scalar"
