"""What is measured of a scorer: best of 16, beams, AUC, and how well it ranks actions of one state.

A scorer's file of numbers is kept in the unit's folder, so that an interrupted unit continues.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tqdm.auto import tqdm

from rlprm import envs, scorers, search
from rlprm.evaluation.baselines import GUIDANCE
from rlprm.evaluation.bon import best_of_n, oracle, sample_mean
from rlprm.evaluation.discrimination import evaluate_discrimination
from rlprm.evaluation.equal_cost import curve_at_cost
from rlprm.evaluation.majority import majority_of_n
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.quality import foresight, running
from rlprm.evaluation.records import Measurement, measure_results
from rlprm.functional.aggregation import AGGREGATIONS
from rlprm.policies.hf import HFPolicy
from rlprm.runtime.files import read_json, write_json
from rlprm.scorers.base import Scorer
from rlprm.scorers.declared import Declared
from rlprm.scorers.policy_confidence import PolicyConfidence
from rlprm.scorers.random import Random
from rlprm.scorers.shortest import Shortest
from rlprm.search.base import SearchResult
from rlprm.types import End, Split
from studies.protocol.unit import Unit, budgets, make_pool, make_probe, pool_config

log = logging.getLogger(__name__)

N = 16
"""Of best-of-N."""
BEAM = {"n": 4, "m": 4}
BEAM_RULES = ("last", "min", "mean")
"""What a beam may rank by: the newest, the lowest or the mean value of a candidate."""
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
        policy: HFPolicy | None = None,
    ) -> list[SearchResult]:
        """Search the unit's tasks of a split, in portions that fit into memory.

        Args:
            strategy: name in ``rlprm.search``.
            split: whose tasks.
            scorer: ranks candidates.
            settings: of the strategy.
            greedy: decode greedily.
            policy: acts in place of the unit's.
        """
        acting = policy or self.policy
        config = pool_config(self.unit, split, N)
        tasks = envs.tasks(config.environment, split, config.first_task, config.num_tasks, config.env_kwargs)
        portion = max(1, _EXPANSIONS_AT_ONCE // search.width(search.load(strategy), settings))
        found: list[SearchResult] = []
        with tqdm(total=len(tasks), desc=f"{strategy}, {scorer.name}, {split}", unit="task") as bar:
            for start in range(0, len(tasks), portion):
                chunk = tasks[start : start + portion]
                found += search.load(strategy).search(
                    chunk,
                    acting.at_temperature(0.0) if greedy else acting,
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
    config = pool_config(unit, Split.TEST, N)
    environment = config.environment
    if hasattr(envs.load(environment), "read_transcript"):
        found.insert(0, scorers.build("transcript", {"kind": "transcript", "environment": environment}))
    if config.end == End.DECLARED:
        found.append(Declared())
    return found


def measured(
    ground: Ground, name: str, make: Callable[[], Scorer], *, chooses: bool = True
) -> dict[str, Any]:
    """Measure one scorer on dev and test tasks with every rule; what was measured is kept.

    Args:
        ground: of the unit.
        name: of the file of measurements.
        make: makes the scorer.
        chooses: whether its beams on dev tasks choose the rule that beams rank by.
    """
    file = ground.unit.folder / "measured" / f"{name}.json"
    if file.exists():
        found: dict[str, Any] = read_json(file)
        return found
    scorer = make()
    dev, test = ground.dev.scored(scorer), ground.test.scored(scorer)
    guided = ground.unit.environment.kind == GUIDANCE and not isinstance(scorer, Shortest | Declared)
    beams = guided and chooses
    found = {
        "best_of_n": {
            rule: {
                "dev": best_of_n(dev, scorer.name, rule, [N])[0].record.success_rate,
                "test": [
                    row(m) for m in best_of_n(test, scorer.name, rule, sorted({N, *budgets(ground.unit)}))
                ],
            }
            for rule in (["last"] if isinstance(scorer, Shortest | Random | Declared) else AGGREGATIONS)
        },
        "beam": {
            rule: {
                "dev": _rate(ground.search("beam", Split.DEV, scorer, {**BEAM, "aggregation": rule})),
            }
            for rule in (BEAM_RULES[: 1 if isinstance(scorer, Random) else None] if beams else ())
        },
        "auc": {
            str(point.share): {"all": point.auc, "within_tasks": point.auc_within_task}
            for point in foresight(test, scorer.name)
        },
        "auc_running": {
            str(point.share): {"t": point.t, "within_tasks": point.auc_within_task, "tasks": point.tasks}
            for point in running(test, scorer.name)
        },
        "actions": evaluate_discrimination(ground.probe, scorer).as_json() if ground.probe else None,
    }
    write_json(file, found)
    return found


def searched(
    ground: Ground,
    name: str,
    make: Callable[[], Scorer],
    strategy: str,
    settings: Mapping[str, Any],
    acts: str | None = None,
) -> Row:
    """Search the test tasks with one scorer; a search that was done is kept.

    Args:
        ground: of the unit.
        name: of the file of measurements.
        make: makes the scorer.
        strategy: name in ``rlprm.search``.
        settings: of the strategy.
        acts: folder of a model that acts in place of the policy.
    """
    file = ground.unit.folder / "measured" / f"{name}.json"
    if file.exists():
        found: Row = read_json(file)
        return found
    scorer = make()
    rule = settings.get("aggregation")
    policy = replace(pool_config(ground.unit, Split.TEST, N), model=acts).load_policy() if acts else None
    results = ground.search(strategy, Split.TEST, scorer, settings, policy=policy)
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
    environment = envs.load(pool_config(ground.unit, Split.TEST, N).environment)
    if answer := getattr(environment, "answer", None):
        found["majority"] = row(majority_of_n(ground.test, answer, [N])[0])
    write_json(file, found)
    return found


def at_equal_cost(curve: Sequence[Measurement], *, cost: str, spent: float) -> Row:
    """Measure the point of a curve that spends as much, between whole numbers by interpolation.

    Args:
        curve: of one pool for k = 1, 2, ..., n.
        cost: one of :data:`rlprm.evaluation.equal_cost.COSTS`.
        spent: per task, by the search that the curve is compared with.
    """
    successes, k = curve_at_cost(curve, cost, spent)
    return {
        **row(curve[math.ceil(k) - 1]),
        "n": round(k, 3),
        "equal": cost,
        "beyond_pool": spent > getattr(curve[-1].record, cost),
        "successes": _ordered(successes),
    }


def row(m: Measurement) -> Row:
    """Return what a record keeps of a measurement; successes are in the order of task ids."""
    record = m.record
    names = ("strategy", "scorer", "aggregation", "n", "m", "mean_score", "failed")
    costs = ("total_tokens", "policy_tokens", "sampled_tokens", "prm_tokens", "env_steps")
    return {
        **{name: getattr(record, name) for name in names},
        "costs": {name: getattr(record, name) for name in costs},
        "successes": _ordered(m.successes),
    }


def _ordered(successes: Mapping[str, float]) -> list[float]:
    return [round(successes[task], 6) for task in sorted(successes)]


def _rate(results: Sequence[SearchResult]) -> float:
    return sum(result.trajectory.outcome.success for result in results) / len(results)
