"""Best-of-N: sample N trajectories, and return the one with the highest score (arXiv 2511.08325).

How step scores become one trajectory score is not stated in the paper; the rules
of ``rlprm.functional.aggregation`` can be chosen from, on dev tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlprm.data.fed_tokens import fed_tokens
from rlprm.errors import ConfigError, DataError
from rlprm.functional.best_of_n import best_of_k_curve
from rlprm.policies.base import Policy
from rlprm.rollouts.episode import run_counted
from rlprm.scorers.base import Scorer
from rlprm.search.base import SearchResult, end_rank, rank_score, score_all
from rlprm.types import EpisodeSetting, StepScores, Task, Trajectory


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    n: int = 8,
    aggregation: str = "last",
) -> list[SearchResult]:
    """Sample, score and choose; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples the candidates.
        scorer: scores each candidate once, when it is finished.
        setting: how episodes are run.
        run_seed: with task and sample number, determines each candidate.
        n: candidates per task.
        aggregation: rule that turns step scores into one number.

    Raises:
        ConfigError: for ``n < 1``, an unknown aggregation, or several candidates from a greedy policy.
    """
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}")
    if n > 1 and policy.temperature == 0:
        raise ConfigError(
            f"a policy at temperature 0 samples the same trajectory {n} times; raise the temperature"
        )
    counted = run_counted(
        [(task, sample) for task in tasks for sample in range(n)], policy, setting, run_seed
    )
    flat = [trajectory for trajectory, _ in counted]
    scores = score_all(scorer, flat)
    starts = range(0, len(flat), n)
    chosen = choose(
        [flat[start : start + n] for start in starts],
        [scores[start : start + n] for start in starts],
        aggregation,
    )
    fed = [sum(tokens for _, tokens in counted[start : start + n]) for start in starts]
    return [replace(result, policy_tokens=tokens) for result, tokens in zip(chosen, fed, strict=True)]


def choose(
    pools: Sequence[Sequence[Trajectory]],
    scores: Sequence[Sequence[StepScores | None]],
    aggregation: str = "last",
) -> list[SearchResult]:
    """Return each task's highest-scored candidate; among equals, the first.

    Args:
        pools: the finished candidates of each task.
        scores: theirs, from ``score_all``; None ranks below every score.
        aggregation: rule that turns step scores into one number.

    Raises:
        ConfigError: for an unknown aggregation.
        DataError: for an empty pool or an unfinished candidate.
        ValueError: if pools and scores do not belong together.
    """
    return [_best(pool, of_pool, aggregation) for pool, of_pool in zip(pools, scores, strict=True)]


def expected(
    pool: Sequence[Trajectory],
    scores: Sequence[StepScores | None],
    aggregation: str,
    budgets: Sequence[int],
    *,
    graded: bool = False,
) -> dict[int, float]:
    """Return BoN@k of one task for each budget k, as the exact mean over all draws of k from the pool.

    Args:
        pool: the n finished candidates of the task.
        scores: theirs, from ``score_all``; None ranks below every score.
        aggregation: rule that turns step scores into one number.
        budgets: each in ``1 ... n``.
        graded: count the environment's own score in [0, 1] instead of success.

    Raises:
        ConfigError: for an unknown aggregation or a budget out of range.
    """
    ranks = [rank_score(s, aggregation) for s in scores]
    rewards = [t.outcome.value("score" if graded else "success") for t in pool]
    return best_of_k_curve(ranks, rewards, budgets)


def _best(pool: Sequence[Trajectory], scores: Sequence[StepScores | None], aggregation: str) -> SearchResult:
    if not pool:
        raise DataError("a pool without candidates has no best one")
    for trajectory in pool:
        end_rank(trajectory.stop)  # refuses unfinished candidates
    ranks = [rank_score(s, aggregation) for s in scores]
    best = max(range(len(pool)), key=ranks.__getitem__)
    return SearchResult(
        trajectory=pool[best],
        score=None if scores[best] is None else ranks[best],
        sampled_tokens=sum(trajectory.action_tokens for trajectory in pool),
        policy_tokens=sum(fed_tokens(pool)),
        scorer_tokens=sum(s.tokens for s in scores if s is not None),
        env_steps=sum(len(trajectory.steps) for trajectory in pool),
    )
