#!/usr/bin/env bash
# scripts/test.sh, then what takes too long for it: the quickstart at full size with seed 0, twice.
# The two runs must give equal numbers, and each headline figure must be within 6 points of its record,
# docs/results/quickstart.json. The comparison is written to runs/test_full/quickstart.md.
# RLPRM_TEST_FULL: further tests that start a vLLM server again, or DeepSpeed beside one, run here only.
# Then every architecture of transformers is tried (docs/architectures.md, three minutes), and the tables of the
# pages are written from the records. Studies over seeds take hours and are started by
# hand (docs/protocol.md).
set -euo pipefail
cd "$(dirname "$0")/.."
RLPRM_TEST_FULL=1 bash scripts/test.sh "$@"
PYTHON="${RLPRM_VENV:-.venv}/bin/python"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 WANDB_MODE=offline TOKENIZERS_PARALLELISM=false
runs="$(mktemp -d)"
trap 'rm -rf "$runs"' EXIT
for run in first second; do
    "$PYTHON" -m rlprm.cli quickstart --output_dir "$runs/$run"
done
"$PYTHON" - "$runs" <<'PYTHON'
import json
import sys
from pathlib import Path

first, second = (json.loads(Path(sys.argv[1], name, "summary.json").read_text()) for name in ("first", "second"))
parts = ("policy", "evaluation", "oracle", "gap_closed", "aggregation", "paired")
different = [part for part in parts if first[part] != second[part]]
if first["rl"]["after"] != second["rl"]["after"]:
    different.append("rl")
sys.exit(f"two quickstarts of one seed differ in: {', '.join(different)}" if different else 0)
PYTHON
echo "two quickstarts of one seed gave equal numbers"
"$PYTHON" -m studies.quickstart compare "$runs/first" --table runs/test_full/quickstart.md
echo "every headline figure is within 6 points of the record"
"$PYTHON" scripts/sweep_architectures.py
"$PYTHON" scripts/make_pages.py
