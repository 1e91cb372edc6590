"""What is measured of a scorer: best of 16, beams, AUC, and how well it ranks actions of one state.

A scorer's file of numbers is kept in the unit's folder, so that an interrupted unit continues.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tqdm.auto import tqdm

from rlprm import envs, scorers, search
from rlprm.evaluation.bon import best_of_n, oracle, sample_mean
from rlprm.evaluation.discrimination import evaluate_discrimination
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.records import Measurement, measure_results
from rlprm.functional.aggregation import AGGREGATIONS
from rlprm.functional.metrics import auc
from rlprm.policies.hf import HFPolicy
from rlprm.runtime.files import read_json, write_json
from rlprm.scorers.base import Scorer
from rlprm.scorers.policy_confidence import PolicyConfidence
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.search.base import SearchResult
from rlprm.types import Split, Trajectory
from studies.protocol.environments import GUIDANCE
from studies.protocol.unit import Unit, budgets, make_pool, make_probe, pool_config

log = logging.getLogger(__name__)

N = 16
"""Of best-of-N."""
BEAM = {"n": 4, "m": 4}
BEAM_RULES = ("last", "min", "mean")
"""What a beam may rank by: the newest, the lowest or the mean value of a candidate."""
QUARTERS = (0.25, 0.5, 0.75)
_EXPANSIONS_AT_ONCE = 128

Row = dict[str, Any]


@dataclass(frozen=True)
class Ground:
    """Where all scorers of a unit compete: the same candidates, tasks and policy."""

    unit: Unit
    dev: Pool
    test: Pool
    probe: str | None

    @classmethod
    def of(cls, unit: Unit) -> Ground:
        """Sample the pools and estimate the actions, or read those that are there."""
        size = max(N, *budgets(unit))
        return cls(unit, make_pool(unit, Split.DEV, N), make_pool(unit, Split.TEST, size), make_probe(unit))

    @cached_property
    def policy(self) -> HFPolicy:
        """The policy at the sampling temperature."""
        return pool_config(self.unit, Split.TEST, N).load_policy()

    def search(
        self,
        strategy: str,
        split: Split,
        scorer: Scorer,
        settings: Mapping[str, Any],
        *,
        greedy: bool = False,
    ) -> list[SearchResult]:
        """Search the unit's tasks of a split, in portions that fit into memory."""
        config = pool_config(self.unit, split, N)
        tasks = envs.tasks(config.environment, split, config.first_task, config.num_tasks, config.env_kwargs)
        portion = max(1, _EXPANSIONS_AT_ONCE // max(1, settings.get("n", 1) * settings.get("m", 1)))
        found: list[SearchResult] = []
        with tqdm(total=len(tasks), desc=f"{strategy}, {scorer.name}, {split}", unit="task") as bar:
            for start in range(0, len(tasks), portion):
                chunk = tasks[start : start + portion]
                found += search.load(strategy).search(
                    chunk,
                    self.policy.at_temperature(0.0) if greedy else self.policy,
                    scorer,
                    config.episode_setting(),
                    run_seed=config.seed,
                    **settings,
                )
                bar.update(len(chunk))
        return found


def free_scorers(unit: Unit) -> list[Scorer]:
    """Return the baselines that need no training."""
    found: list[Scorer] = [PolicyConfidence(), Shortest(), Random(seed=unit.seed)]
    environment = pool_config(unit, Split.TEST, N).environment
    if "transcript" in scorers.available() and hasattr(envs.load(environment), "read_transcript"):
        found.insert(0, scorers.build("transcript", {"kind": "transcript", "environment": environment}))
    return found


def measured(ground: Ground, name: str, make: Callable[[], Scorer]) -> dict[str, Any]:
    """Measure one scorer on dev and test tasks with every rule; what was measured is kept."""
    file = ground.unit.folder / "measured" / f"{name}.json"
    if file.exists():
        found: dict[str, Any] = read_json(file)
        return found
    scorer = make()
    dev, test = ground.dev.scored(scorer), ground.test.scored(scorer)
    beams = ground.unit.environment.kind == GUIDANCE and not isinstance(scorer, Shortest)
    found = {
        "best_of_n": {
            rule: {
                "dev": best_of_n(dev, scorer.name, rule, [N])[0].record.success_rate,
                "test": [
                    row(m) for m in best_of_n(test, scorer.name, rule, sorted({N, *budgets(ground.unit)}))
                ],
            }
            for rule in (["last"] if isinstance(scorer, Shortest | Random) else AGGREGATIONS)
        },
        "beam": {
            rule: {
                "dev": _rate(ground.search("beam", Split.DEV, scorer, {**BEAM, "aggregation": rule})),
            }
            for rule in (BEAM_RULES[: 1 if isinstance(scorer, Random) else None] if beams else ())
        },
        "auc": {str(q): _auc(test, scorer.name, q) for q in QUARTERS},
        "actions": evaluate_discrimination(ground.probe, scorer).as_json() if ground.probe else None,
    }
    write_json(file, found)
    return found


def searched(
    ground: Ground, name: str, make: Callable[[], Scorer], strategy: str, settings: Mapping[str, Any]
) -> Row:
    """Search the test tasks with one scorer; a search that was done is kept."""
    file = ground.unit.folder / "measured" / f"{name}.json"
    if file.exists():
        found: Row = read_json(file)
        return found
    scorer = make()
    rule = settings.get("aggregation")
    results = ground.search(strategy, Split.TEST, scorer, settings)
    n, m = int(settings.get("n", 1)), int(settings.get("m", 1))
    found = row(measure_results(results, strategy=strategy, scorer=scorer.name, aggregation=rule, n=n, m=m))
    write_json(file, found)
    return found


def free_rows(ground: Ground) -> dict[str, Row]:
    """Measure what needs no scorer: one sample, greedy, majority, oracle."""
    file = ground.unit.folder / "measured" / "free.json"
    if file.exists():
        found: dict[str, Row] = read_json(file)
        return found
    found_greedily = ground.search("greedy", Split.TEST, Shortest(), {}, greedy=True)
    greedy = measure_results(found_greedily, strategy="greedy")
    found = {
        "one_sample": row(sample_mean(ground.test)),
        "greedy": row(greedy),
        "oracle": row(oracle(ground.test, [N])[0]),
    }
    if answer := ground.unit.environment.answer:
        votes = {tasks[0].task.id: majority(tasks, answer) for tasks in ground.test.trajectories}
        found["majority"] = {**found["oracle"], "strategy": "majority", "successes": _ordered(votes)}
    write_json(file, found)
    return found


def majority(
    candidates: Sequence[Trajectory], answer: Callable[[Trajectory], str | None], n: int = N
) -> float:
    """Return the success of the most frequent answer, averaged over blocks of n candidates.

    Of answers that are equally frequent, the one that was sampled first wins. Candidates without an answer
    have no vote.
    """
    blocks = [candidates[start : start + n] for start in range(0, len(candidates) - n + 1, n)] or [candidates]
    successes = []
    for block in blocks:
        votes = Counter(given for trajectory in block if (given := answer(trajectory)) is not None)
        if not votes:
            successes.append(0.0)
            continue
        (winner, _), *_ = votes.most_common(1)
        successes.append(float(next(t.outcome.success for t in block if answer(t) == winner)))
    return sum(successes) / len(successes)


def at_equal_cost(pool: Pool, scorer: Scorer, rule: str, *, cost: str, spent: float) -> Row:
    """Measure best-of-k by a scorer with the k that spends as much, between whole numbers by interpolation.

    Args:
        pool: the candidates; k is at most their number.
        scorer: chooses.
        rule: aggregation.
        cost: ``tokens`` or ``env_steps``.
        spent: per task, by the search that best-of-k is compared with.
    """
    scored = pool.scored(scorer)
    every = best_of_n(scored, scorer.name, rule, list(range(1, pool.n + 1)))
    costs = [row(m)["costs"][cost] for m in every]
    k = min(max(spent / costs[0], 1.0), float(pool.n))
    low, share = math.floor(k), k - math.floor(k)
    below, above = every[low - 1], every[min(low, pool.n - 1)]
    mixed = {t: (1 - share) * s + share * above.successes[t] for t, s in below.successes.items()}
    return {
        **row(below),
        "n": round(k, 3),
        "equal": cost,
        "enough_candidates": spent <= costs[-1],
        "successes": _ordered(mixed),
    }


def row(m: Measurement) -> Row:
    """Return what a record keeps of a measurement; successes are in the order of task ids."""
    record = asdict(m.record)
    names = ("strategy", "scorer", "aggregation", "n", "m", "mean_score", "failed")
    rates = ("success_rate", "ci_low", "ci_high", "tasks", "end")
    costs = {key: value for key, value in record.items() if key not in (*names, *rates)}
    return {
        **{name: record[name] for name in names},
        "costs": {"tokens": m.record.total_tokens, **costs},
        "successes": _ordered(m.successes),
    }


def _ordered(successes: Mapping[str, float]) -> list[float]:
    return [round(successes[task], 6) for task in sorted(successes)]


def _rate(results: Sequence[SearchResult]) -> float:
    return sum(result.trajectory.outcome.success for result in results) / len(results)


def _auc(pool: Pool, scorer: str, position: float) -> dict[str, float | None]:
    """Return the AUC of the value after a share of an episode's steps, over all tasks and within tasks.

    The value is that of step ``ceil(position · T)`` of T.
    """
    values: list[float] = []
    success: list[bool] = []
    within: list[float] = []
    for candidates, scores in zip(pool.trajectories, pool.scores_of(scorer), strict=True):
        pairs = [
            (s.values[math.ceil(position * len(s.values)) - 1], t.outcome.success)
            for t, s in zip(candidates, scores, strict=True)
            if s is not None
        ]
        values += [value for value, _ in pairs]
        success += [won for _, won in pairs]
        of_task = auc([value for value, _ in pairs], [won for _, won in pairs])
        if of_task is not None:
            within.append(of_task)
    return {"all": auc(values, success), "within_tasks": sum(within) / len(within) if within else None}
