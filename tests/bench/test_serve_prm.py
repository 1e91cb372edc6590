"""The load test of a PRM server counts errors and compares scores."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.serving.test_prm_load import Gated
from tests.toys.serving import served

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench" / "serve_prm.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bench_serve_prm", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # data classes look for their module there
    specification.loader.exec_module(module)
    return module


def test_clients_get_answers_that_agree(script: ModuleType, tmp_path: Path) -> None:
    script.save_tiny_prm(tmp_path, "xs")
    with served(str(tmp_path)) as url:
        tally, seconds = asyncio.run(script.load(url, 8, 0.5))
    assert seconds >= 0.5
    assert len(tally.seconds) >= 8
    assert tally.compared > 0
    assert not tally.problems


def test_errors_and_other_scores_are_counted(script: ModuleType, tmp_path: Path) -> None:
    class Drifting(Gated):
        def score(self, trajectories):  # type: ignore[no-untyped-def]
            found = super().score([t for t in trajectories if len(t.steps) != 4] or trajectories)
            if len(found) < len(trajectories):
                raise ValueError("four steps")
            drift = len(self.batches)
            return [type(s)(drift, tuple(v + drift for v in s.values), s.tokens) for s in found]

    script.save_tiny_prm(tmp_path, "xs")
    with served(str(tmp_path), scorer=Drifting(is_open=True), token_budget=1) as url:
        tally, _ = asyncio.run(script.load(url, 4, 0.5))
    assert tally.problems["HTTP 500"] > 0
    assert tally.problems["another score of the same trajectory"] > 0
