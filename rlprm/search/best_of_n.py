"""Best-of-N: sample N trajectories, and return the one with the highest score (arXiv 2511.08325).

How step scores become one trajectory score is not stated in the paper; the rules
of ``rlprm.functional.aggregation`` can be chosen from, on dev tasks.

With a ``budget``, the candidates are those that sampling one after another would begin before the last
environment step is taken. The last one may be cut off, and is returned only if no other could be scored.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.errors import ConfigError, DataError
from rlprm.functional.best_of_n import best_of_k_curve
from rlprm.policies.base import Policy
from rlprm.scorers.base import Scorer
from rlprm.search.base import UNRANKED, SearchResult, end_rank, rank_score
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, Score, advance, check_sampling, run, start
from rlprm.types import EpisodeSetting, StepScores, StopReason, Task, Trajectory

SIDE_BY_SIDE = ("n",)


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    budget: int | None = None,
    n: int = 8,
    aggregation: str = "last",
) -> list[SearchResult]:
    """Sample, score and choose; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples the candidates.
        scorer: scores each candidate once, when all are finished.
        setting: how episodes are run.
        run_seed: with task and sample number, determines each candidate.
        budget: the most environment steps of one task; None for no limit.
        n: the most candidates of one task.
        aggregation: rule that turns step scores into one number.

    Raises:
        ConfigError: for ``n < 1`` or ``budget < 1``, an unknown aggregation, or several candidates from a
            greedy policy.
    """
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}")
    check_sampling(policy, n)

    def plan(ledger: Ledger) -> Plan[Candidate]:
        return _plan(ledger, n, aggregation)

    return run(tasks, policy, scorer, setting, plan, run_seed=run_seed, budget=budget, grows=False)


def _plan(ledger: Ledger, n: int, aggregation: str) -> Plan[Candidate]:
    pool, running = list[Candidate](), list[Candidate]()
    while ledger.left:
        fresh = ledger.affordable(running, n - len(pool))
        pool += yield from start(range(len(pool), len(pool) + fresh))
        running = [candidate for candidate in pool if candidate.stop is None]
        if not running and len(pool) == n:
            break
        yield from advance(ledger, running)
        running = [candidate for candidate in running if candidate.stop is None]
    ledger.keep(map(ledger.close, pool))
    yield Score(pool, aggregation, pooled=True)
    scores = [candidate.scores for candidate in pool]
    return pool[choose([candidate.trajectory for candidate in pool], scores, aggregation)]


def choose(pool: Sequence[Trajectory], scores: Sequence[StepScores | None], aggregation: str = "last") -> int:
    """Return the index of the highest-scored candidate of a task; among equals, of the first.

    A candidate that the search cut off ranks below the others that have a score.

    Args:
        pool: the finished candidates.
        scores: theirs, from ``score_all``; None ranks below every score.
        aggregation: rule that turns step scores into one number.

    Raises:
        ConfigError: for an unknown aggregation.
        DataError: for an empty pool or an unfinished candidate.
        ValueError: if pool and scores do not belong together.
    """
    if not pool:
        raise DataError("a pool without candidates has no best one")
    keys = []
    for trajectory, of_candidate in zip(pool, scores, strict=True):
        end_rank(trajectory.stop)  # refuses unfinished candidates
        rank = rank_score(of_candidate, aggregation)
        keys.append((rank != UNRANKED, trajectory.stop is not StopReason.SEARCH_LIMIT, rank))
    return max(range(len(pool)), key=keys.__getitem__)


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
