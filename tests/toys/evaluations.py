"""A synthetic pool with scorers of known worth, for tests of evaluations and for looking at plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlprm.evaluation.bon import evaluate_pool
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.records import Measurement, measure_results
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.search.base import SearchResult
from rlprm.types import Step, StepScores, StopReason, Trajectory
from tests.toys.trajectories import of_steps


class Noisy:
    """Knows the outcome, through noise that fades towards the end of the trajectory.

    Args:
        name: shown in tables.
        noise: standard deviation at the first step; 0 is the truth, large knows nothing.
    """

    def __init__(self, name: str, noise: float) -> None:
        self.name, self.noise = name, noise

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        return [self._score(t) for t in trajectories]

    def _score(self, t: Trajectory) -> StepScores:
        steps = len(t.steps)
        rng = np.random.default_rng((7, t.sample, *t.task.id.encode(), *self.name.encode()))
        share = np.arange(1, steps + 1) / steps
        truth = 0.45 + (float(t.outcome.success) - 0.45) * share
        values = 1 / (1 + np.exp(-4 * (truth - 0.5 + self.noise * (1.4 - share) * rng.normal(size=steps))))
        return StepScores(0.45, tuple(values.tolist()), tokens=len(t.token_ids))


def pool(tasks: int = 40, n: int = 16, seed: int = 0) -> Pool:
    """Tasks of different difficulty; success does not show in the length."""
    rng = np.random.default_rng(seed)
    rows = []
    for task in range(tasks):
        chance = rng.beta(1.2, 1.8)
        for sample in range(n):
            won = bool(rng.random() < chance)
            steps = int(rng.integers(3, 12))
            stop = StopReason.DECLARED if steps < 11 else StopReason.ROUND_LIMIT
            made = of_steps(won, steps, task=f"t{task}", sample=sample, stop=stop, action_tokens=4)
            names = ("go to red ball 1", "turn left", "pick up the blue key", "toggle and go through door 2")
            named = [Step(s.start, s.end, names[int(rng.integers(4))]) for s in made.steps]
            rows.append(replace(made, steps=tuple(named)))
    return Pool.from_trajectories(rows)


SCORERS = (Noisy("agentprm", 0.9), Noisy("orm", 2.5), Random(), Shortest())
BUDGETS = (1, 2, 4, 8, 16)


def scored_pool(tasks: int = 40, n: int = 16, seed: int = 0) -> Pool:
    made = pool(tasks, n, seed)
    for scorer in SCORERS:
        made = made.scored(scorer)
    return made


def results(of: Pool, success_rate: float, width: int = 1) -> list[SearchResult]:
    """Results of a made-up search that solves a given share of the tasks."""
    chosen = []
    for index, row in enumerate(of.trajectories):
        wanted = index < round(success_rate * len(of.trajectories))
        best = next((t for t in row if t.outcome.success is wanted), row[0])
        score = 0.5 if width > 1 else None
        chosen.append(SearchResult(best, score, 40 * width, 70 * width, 90 * (width - 1), 9 * width))
    return chosen


def measurements(of: Pool) -> list[Measurement]:
    found = evaluate_pool(of, {scorer.name: ["last"] for scorer in SCORERS}, BUDGETS)
    found.append(measure_results(results(of, 0.45), strategy="greedy"))
    for n, rate in ((2, 0.6), (4, 0.7)):
        found.append(
            measure_results(
                results(of, rate, n * 4), strategy="beam", scorer="agentprm", aggregation="last", n=n, m=4
            )
        )
    return found
