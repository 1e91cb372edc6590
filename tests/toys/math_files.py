"""Problems as GSM8K and MMLU store them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CLIPS = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nThat is 48+24 = <<48+24=72>>72 clips.\n#### 72",
}
CAPITAL = {"question": "Capital of France?", "choices": ["Rome", "Paris", "Oslo", "Bern"], "answer": 1}


def gsm8k_row(number: int, answer: str = "#### 1") -> dict[str, Any]:
    """A row of which nothing matters but its answer."""
    return {"question": f"Question {number}?", "answer": f"A line.\n{answer}"}


def write(path: Path, rows: Iterable[Any]) -> str:
    """Write rows, one a line; returns the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
