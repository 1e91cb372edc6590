#!/usr/bin/env bash
# The main job on the embedded default, offline: minutes on two CPU cores, installation aside.
# Arguments are passed on:  bash scripts/quickstart.sh --seed 1 --output_dir runs/seed1
source "$(dirname "$0")/_common.sh"
install ""
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
exec "$VENV/bin/rlprm" quickstart "$@"
