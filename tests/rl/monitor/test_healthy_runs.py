"""The alarm of today on the journals of healthy runs (docs/results/rl-healthy.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlprm.rl.monitor.alarm import alarms
from rlprm.rl.monitor.watch import Sign
from rlprm.runtime.files import read_json
from studies.rl import healthy

RECORD = Path(__file__).parents[3] / healthy.RECORD
RESTARTS = {"plain": (0,), "refreshed": (0, 10, 20), "curriculum": (0, 10, 20)}
"""Iterations from which the alarm looks, by kind of run."""
RUNS = read_json(RECORD)["runs"]


def test_there_are_as_many_as_planned() -> None:
    assert [run["kind"] for run in RUNS] == list(healthy.RUNS)
    assert all(len(run["watch"]) == len(run["success"]) == 30 for run in RUNS)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['seed']}-{run['kind']}")
def test_it_rang_as_recorded(run: dict[str, Any]) -> None:
    rows = [{name: Sign(**found) for name, found in row.items()} for row in run["watch"]]
    found = {}
    for iteration in range(len(rows)):
        since = max(start for start in RESTARTS[run["kind"]] if start <= iteration)
        found |= alarms(rows[since : iteration + 1], outcome="success")
    assert bool(found) == bool(run["rang"])
