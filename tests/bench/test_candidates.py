"""The benchmarks of candidates and of the update do what they say, each on something small."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def test_both_ways_of_reading_candidates_agree(tmp_path: Path) -> None:
    rollouts, candidates = (importlib.import_module(name) for name in ("rollouts", "candidates"))
    model = rollouts.tiny_policy(tmp_path / "policy", size="xs")
    found = candidates.measure(
        ["--model", model, "--environment", "drawn", "--output_dir", "-"], prefixes=2, times=1
    )
    assert found["equal"] == found["values"] == 2 * 16 * 2  # at the end of the prefix and of the candidate
    assert found["ratio"] == pytest.approx(found["padded_ms"] / found["shared_ms"])


def test_episodes_of_the_update_are_cut_after_their_prompts() -> None:
    update, drawn = (importlib.import_module(name) for name in ("update", "drawn"))
    found = drawn.drawn(5, 300, seed=1)
    pad = update.unused_token(found, 300)
    queries, responses = update.split(found, pad)
    assert len({len(t.token_ids) for t in found}) > 1
    for trajectory, query, response in zip(found, queries.tolist(), responses.tolist(), strict=True):
        both = [token for token in (*query, *response) if token != pad]
        assert tuple(both) == trajectory.token_ids
        assert query[-1] != pad
        assert response[0] != pad
