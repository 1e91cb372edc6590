"""Several processes share the scoring, and each has about equally many tokens to read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rlprm.runtime.processes import Processes
from rlprm.scorers.distributed import DistributedScorer
from rlprm.types import StepScores, Trajectory
from tests.toys.trajectories import of_steps


class ByLength:
    """Scores a trajectory by its number of tokens, and remembers what it read."""

    name = "length"

    def __init__(self) -> None:
        self.tokens = 0

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        self.tokens += sum(len(t.token_ids) for t in trajectories)
        return [StepScores(0.0, (float(len(t.token_ids)),) * len(t.steps)) for t in trajectories]


def test_shares_have_equal_tokens_and_scores_stand_in_the_order_of_the_trajectories(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Every other trajectory is long: shares by number would give all of the long ones to one process.
    made = [of_steps(steps=20 if number % 2 else 1 + number % 3) for number in range(16)]
    members = [Processes(rank, 2) for rank in range(2)]
    by_length = sorted(made, key=lambda t: len(t.token_ids))
    shares = [ByLength().score(member.share(by_length)) for member in members]
    monkeypatch.setattr(Processes, "gather_all", lambda *_: shares)
    read = []
    for member in members:
        scorer = ByLength()
        found = DistributedScorer(scorer, member).score(made)
        assert [s.values[0] for s in found] == [len(t.token_ids) for t in made]
        read.append(scorer.tokens)
    assert abs(read[0] - read[1]) < max(len(t.token_ids) for t in made)
