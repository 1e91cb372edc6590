"""One architecture of each kind, a tenth of the others by turns, and a row for each installed one."""

from __future__ import annotations

import datetime
import json
import os

import pytest
import transformers

from scripts.sweep_architectures import PAGE, RECORD, page
from tests.architectures.checks import RIGHT, row_of
from tests.architectures.tiny import discovered

KINDS = {
    "llama": "kept",
    "qwen2": "kept",
    "qwen3": "kept",
    "phi3": "kept",
    "bloom": "kept",
    "mistral": "turn",
    "gemma2": "turn",
    "gemma3_text": "turn",
    "gpt_oss": "turn",
    "qwen3_5_text": "turn",
    "mamba": "turn",
    "lfm2": "turn",
}
"""Full attention with rotary and linear positions; windows, soft caps, a state space, a convolution."""
RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
ROWS = {row["model_type"]: row for row in RECORDED["rows"]}
SAME_VERSION = pytest.mark.skipif(
    RECORDED["transformers"] != transformers.__version__,
    reason=f"the table is of transformers {RECORDED['transformers']}",
)


def tenth() -> list[str]:
    """Return a tenth of the architectures that are right; the week decides which."""
    week = int(os.environ.get("RLPRM_TENTH", datetime.date.today().isocalendar().week))
    others = [name for name, row in ROWS.items() if row["verdict"] == RIGHT and name not in KINDS]
    return others[week % 10 :: 10]


@pytest.mark.parametrize("model_type", KINDS)
def test_one_of_each_kind_is_right(model_type: str) -> None:
    row = row_of(model_type)
    assert row.verdict == RIGHT
    assert row.decoding == KINDS[model_type]
    assert row.searching == {"kept": "by what is new", "turn": "whole"}[row.decoding]


@SAME_VERSION
@pytest.mark.parametrize("model_type", tenth())
def test_a_tenth_of_the_others_is_as_the_table_says(model_type: str) -> None:
    row = row_of(model_type)
    assert (row.verdict, row.decoding) == (ROWS[model_type]["verdict"], ROWS[model_type]["decoding"])


@SAME_VERSION
def test_every_installed_architecture_has_a_row() -> None:
    assert discovered() == sorted(ROWS)


def test_the_page_is_made_of_the_record() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(RECORDED)


def test_most_are_right() -> None:
    assert sum(row["verdict"] == RIGHT for row in ROWS.values()) >= 0.95 * len(ROWS)


def test_a_model_that_reads_later_tokens_is_refused() -> None:
    row = row_of("cpmant")
    assert row.verdict.startswith("refused: models of type cpmant do not write from left to right")
