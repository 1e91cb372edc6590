"""The benchmark of environments runs, and leaves none out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlprm import envs

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "envs.py"


def run(*arguments: str, cache: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "RLPRM_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_every_environment_is_measured_or_says_why_not(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    cache = pytestconfig.cache.mkdir("rlprm")
    file = tmp_path / "rates.json"
    printed = run("--seconds", "0.05", "--prepare", "0.5", "--tasks", "45", "--json", str(file), cache=cache)
    figures = json.loads(file.read_text())
    rates = {row["name"]: row for row in figures["rates"]}
    assert set(rates) == {*envs.available(), "babyai, 40 levels"}
    for name, row in rates.items():
        assert f"| {name} | " in printed
        reason = envs.missing(name.split(",")[0])
        if reason:
            assert (row["steps"], row["note"]) == (None, reason)
        else:
            assert min(row["steps"], row["resets"], row["first_resets"]) > 0
            assert row["tasks"] >= 1
            assert 0 <= row["refused"] < 1
    assert "AgentGym's text wrapper: about 200" in printed
    assert 0 < figures["search_over_1000_products_s"] < 1


def test_one_environment_and_its_target(tmp_path: Path) -> None:
    printed = run("textcraft", "--seconds", "0.2", "--tasks", "20", cache=tmp_path)
    (row,) = (line for line in printed.splitlines() if line.startswith("| textcraft"))
    assert row.split(" | ")[5:7] in (["20", "100,000 met"], ["20", "100,000 missed"])
    assert "babyai" not in printed
