"""Sampling until acceptance: one episode after another, until the scorer accepts one or the budget is gone.

An episode is accepted if its score reaches a threshold. With the scorer ``transcript``, which is 1 if the
texts of the episode show success, this is the price of sampling until success shows. Other strategies
should be compared with it at equal tokens and equal environment steps. Without an accepted episode the result
is the best one: terminated before truncated before failed, then by score.

Sample k is the episode that best-of-N has as its candidate k. No step is taken beyond the accepted episode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlprm.errors import ConfigError
from rlprm.policies.base import Policy
from rlprm.scorers.base import Scorer
from rlprm.search.base import SearchResult
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, advance, best, check_sampling, episode_limit, run, score, start
from rlprm.types import EpisodeSetting, Task

SIDE_BY_SIDE = ()


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    budget: int | None = None,
    n: int | None = None,
    threshold: float = 0.5,
    aggregation: str = "last",
) -> list[SearchResult]:
    """Search all tasks; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples the episodes.
        scorer: scores each episode once, when it has ended.
        setting: how episodes are run.
        run_seed: with task and sample number, determines each episode.
        budget: the most environment steps of one task.
        n: the most episodes; None for as many as the budget pays for, or 16 without one.
        threshold: the lowest score of an accepted episode, in units of the scorer.
        aggregation: from the step scores of an episode to its score.

    Raises:
        ConfigError: for ``n`` or ``budget`` below 1, a threshold that is not a number, an unknown
            aggregation, or a greedy policy.
        DataError: for scores that are missing or not finite.
    """
    most = episode_limit(n, budget)
    if math.isnan(threshold):
        raise ConfigError(f"threshold: got {threshold}, allowed: a number")
    check_sampling(policy, most)

    def plan(ledger: Ledger) -> Plan[Candidate]:
        return _plan(ledger, most, threshold, aggregation)

    return run(tasks, policy, scorer, setting, plan, run_seed=run_seed, budget=budget, grows=False)


def _plan(ledger: Ledger, most: int, threshold: float, aggregation: str) -> Plan[Candidate]:
    pool = list[Candidate]()
    while ledger.left and len(pool) < most:
        (episode,) = yield from start([len(pool)])
        pool.append(episode)
        if episode.stop is not None:  # the environment did not start
            break
        while episode.stop is None and ledger.left:
            yield from advance(ledger, [episode])
        ledger.keep([ledger.close(episode)])
        yield from score([episode], aggregation)
        if episode.rank >= threshold:
            return episode
    return best(pool)
