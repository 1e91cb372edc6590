"""Check every text-generation architecture of the installed transformers; write docs/architectures.md.

python scripts/sweep_architectures.py                 # all, about three minutes of one core
python scripts/sweep_architectures.py llama mistral   # some, printed and not written
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections import Counter
from pathlib import Path

import torch
import transformers
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rlprm.runtime.files import write_json  # noqa: E402
from tests.architectures.checks import RIGHT, Row, row_of  # noqa: E402
from tests.architectures.tiny import discovered  # noqa: E402

RECORD = ROOT / "docs" / "results" / "architectures.json"
PAGE = ROOT / "docs" / "architectures.md"
_WAYS = {
    "kept": "a cache kept across turns",
    "turn": "the model's own cache, for a turn",
    "turn_by_length": "the model's own cache, for a turn, by length",
    "whole": "no cache",
}


def page(record: dict[str, object]) -> str:
    """Return the page of a record."""
    rows = [Row(**row) for row in record["rows"]]  # type: ignore[attr-defined]
    made = [row for row in rows if not row.verdict.startswith("no tiny model")]
    right = [row for row in made if row.verdict == RIGHT]
    ways = Counter(row.decoding for row in right)
    lines = [
        "# Architectures",
        "",
        "<!-- Written by `python scripts/sweep_architectures.py` from docs/results/architectures.json. -->",
        "",
        f"transformers {record['transformers']} knows {len(rows)} architectures that write text. Of "
        f"{len(made)} a tiny random model can be made, and {len(right)} of these "
        f"({100 * len(right) / len(made):.0f} %) are right: decoding over three turns gives the tokens of a "
        "decoding without a cache and the log-probabilities of one whole forward (within 1e-4), sampled "
        "tokens are read with the model's own probabilities, an lm head and a scalar head load and save, and "
        "LoRA learns. "
        + ", ".join(f"{count} decode with {_WAYS[way]}" for way, count in ways.most_common())
        + ". Nothing of this is a list in the code. A model is tried when it first acts, and the fastest way "
        "that is right is taken ([how](big_models.md#architectures)).",
        "",
        "| model type | decoding | a search's candidates are read | verdict |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        verdict = row.verdict.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{row.model_type}` | {_WAYS.get(row.decoding, '')} | {row.searching} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_types", nargs="*", help="all if none is given")
    parser.add_argument("--page", action="store_true", help="write the page of the record that is there")
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(page(json.loads(RECORD.read_text(encoding="utf-8"))), encoding="utf-8")
        return
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = []
    for name in tqdm(arguments.model_types or discovered(), desc="architectures"):
        rows.append(row_of(name))
        if arguments.model_types or rows[-1].verdict != RIGHT:
            tqdm.write(" ".join(map(str, rows[-1])))
    if arguments.model_types:
        return
    record = {
        "what": "every text-generation architecture of transformers, as a tiny random model",
        "command": "python scripts/sweep_architectures.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "rows": [row._asdict() for row in rows],
    }
    write_json(RECORD, record)
    PAGE.write_text(page(record), encoding="utf-8")


if __name__ == "__main__":
    main()
