"""The recipes there are, and what their names and headers say."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from rlprm.cli import _STAGES

ROOT = Path(__file__).parents[2]
RECIPES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "recipes").rglob("*.yaml"))
STAGE_OF = {stage.replace("-", "_"): stage for stage in _STAGES} | {
    "pretrain": "sft",
    "train_orm": "train-prm",
    "train_pvm": "train-prm",
}
"""First part of a recipe's file name → stage."""


def stage_of(recipe: str) -> str:
    """Stage of ``<stage>_<model>.yaml``."""
    (found,) = (stage for name, stage in STAGE_OF.items() if Path(recipe).stem.startswith(name + "_"))
    return found


def header(recipe: str) -> dict[str, str]:
    """Name → text of the comment lines that a file begins with."""
    lines = (ROOT / recipe).read_text().splitlines()
    comments = [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return dict(re.split(r":\s+", c, maxsplit=1) for c in comments if re.match(r"\w+:\s", c))
