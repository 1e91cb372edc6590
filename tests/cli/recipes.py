"""The shipped recipes: what their names and headers say, and their settings."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import yaml

from rlprm.cli import _STAGES
from rlprm.runtime.parsing.library import accepted_names
from rlprm.runtime.recipes import resolve, settings_type

ROOT = Path(__file__).parents[2]
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "recipes").rglob("*.yaml"))
BASES = [file for file in FILES if Path(file).name.startswith("_")]
RECIPES = [file for file in FILES if file not in BASES]
STAGE_OF = {stage.replace("-", "_"): stage for stage in _STAGES} | {
    "pretrain": "sft",
    "train_orm": "train-prm",
    "train_pvm": "train-prm",
    "train_returns": "train-prm",
    "clone": "sft",
}
"""First part of a recipe's file name → stage."""


def stage_of(recipe: str) -> str:
    """Stage of ``<stage>_<model>.yaml``."""
    (found,) = (stage for name, stage in STAGE_OF.items() if Path(recipe).stem.startswith(name + "_"))
    return found


def settings_of(recipe: str) -> dict[str, Any]:
    """Settings of a recipe with those of its base, and with its root in every path."""
    names = accepted_names(settings_type(stage_of(recipe)))
    return resolve(str(ROOT / recipe), [], [], names).values


def bases_of(file: str) -> set[str]:
    """Names of the files that a file takes settings from, directly or through another."""
    path = ROOT / file
    named = yaml.safe_load(path.read_text()).get("base", [])
    beside = [str(Path(file).with_name(name)) for name in ([named] if isinstance(named, str) else named)]
    return {Path(base).name for base in beside}.union(*map(bases_of, beside))


def header(recipe: str) -> dict[str, str]:
    """Name → text of the comment lines that a file begins with."""
    lines = (ROOT / recipe).read_text().splitlines()
    comments = [line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return dict(re.split(r":\s+", c, maxsplit=1) for c in comments if re.match(r"\w+:\s", c))
