"""Best of k at each step: one episode, and at each turn the best of k sampled actions.

A PRM reads ``v_t`` at the end of the action, before the environment answers. The sampled actions are
therefore scored without being carried out. Only the best one is carried out, so that a step of the episode is
one environment step, and the environment needs no ``fork``. A scorer that reads observations judges an action
by the observations before it. Equal actions are merged before scoring, and among equal scores the first
sample is taken.

There is no way back inside an episode. With ``n`` above 1, another episode starts unless the finished one is
accepted. ``accept: scorer`` accepts an episode that has terminated and whose score reaches ``threshold``.
``accept: transcript`` accepts an episode whose texts show success by the environment's rule, so that searches
by different scorers differ in the choice of actions alone. With ``k`` 1 this is ``sample_until_accepted`` by
``transcript`` with threshold 1. Without an accepted episode the result is the best one: terminated before
truncated before failed, then by the score of its newest action.

Scoring actions before they are carried out is the difference to a beam 1×k, which takes k environment steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlprm.errors import ConfigError
from rlprm.policies.base import Policy
from rlprm.scorers.base import Scorer
from rlprm.scorers.transcript import ACCEPTED, Transcript
from rlprm.search.base import EndRank, SearchResult, can_be_scored, end_rank
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, Step, best, check_sampling, merge, run, sample, score, start
from rlprm.types import EpisodeSetting, Task

SIDE_BY_SIDE = ("k",)

ACCEPT = ("scorer", "transcript")


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    budget: int | None = None,
    k: int = 4,
    n: int = 1,
    accept: str = "scorer",
    threshold: float = 0.5,
    aggregation: str = "last",
) -> list[SearchResult]:
    """Search all tasks; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples actions.
        scorer: scores actions that are not carried out yet.
        setting: how episodes are run.
        run_seed: with a task's id, determines all its random numbers.
        budget: the most environment steps of one task; None for the length of its episodes.
        k: actions sampled at each turn.
        n: the most episodes.
        accept: who accepts an episode, ``scorer`` or ``transcript``; without use if ``n`` is 1.
        threshold: the lowest score of an episode that the scorer accepts, in units of the scorer.
        aggregation: from the step scores up to an action to what the action is ranked by.

    Raises:
        ConfigError: for ``k``, ``n`` or ``budget`` below 1, another ``accept``, an environment without the
            rule, a threshold that is not a number, an unknown aggregation, or a greedy policy for ``k`` or
            ``n`` above 1.
        DataError: for scores that are missing or not finite.
    """
    if k < 1:
        raise ConfigError(f"k: got {k}, allowed: at least 1 action")
    if n < 1:
        raise ConfigError(f"n: got {n}, allowed: at least 1 episode")
    if accept not in ACCEPT:
        raise ConfigError(f"accept: got {accept!r}, allowed: {', '.join(ACCEPT)}")
    if math.isnan(threshold):
        raise ConfigError(f"threshold: got {threshold}, allowed: a number")
    check_sampling(policy, max(k, n))

    def plan(ledger: Ledger) -> Plan[Candidate]:
        rule = Transcript(ledger.task.environment) if accept == "transcript" and n > 1 else None
        return _plan(ledger, k, n, rule, threshold, aggregation)

    return run(tasks, policy, scorer, setting, plan, run_seed=run_seed, budget=budget, grows=True)


def _plan(
    ledger: Ledger, k: int, n: int, rule: Transcript | None, threshold: float, aggregation: str
) -> Plan[Candidate]:
    pool = list[Candidate]()
    while len(pool) < n and (ledger.left or not pool):
        (episode,) = yield from start([len(pool)])
        pool.append(episode)
        if episode.stop is not None:  # the environment did not start
            break
        yield from _run(ledger, episode, k, aggregation)
        if n == 1:
            return episode
        if rule is not None:
            if _shows_success(rule, episode):
                return episode
            continue
        # The environment's last answer is part of what the scorer reads.
        yield from score([episode], aggregation)
        if end_rank(episode.stop) is EndRank.TERMINATED and episode.rank >= threshold:
            return episode
    return best(pool)


def _shows_success(rule: Transcript, episode: Candidate) -> bool:
    if not can_be_scored(episode.trajectory):
        return False
    (found,) = rule.score([episode.trajectory])
    return found.values[-1] >= ACCEPTED


def _run(ledger: Ledger, episode: Candidate, k: int, aggregation: str) -> Plan[None]:
    """Run an episode to its end, or to the end of the budget."""
    while episode.stop is None and ledger.left:
        completions = yield from sample([(episode, branch) for branch in range(k)])
        actions = merge([episode] * k, completions)
        previews = [ledger.preview(episode, completion, samples) for _, completion, samples in actions]
        yield from score(previews, aggregation)
        chosen = max(range(len(previews)), key=lambda index: previews[index].rank)
        episode.adopt(previews[chosen])
        yield Step([(episode, actions[chosen][1])], fork=False)
        ledger.note(episode, executed=True, kept=True)
    ledger.close(episode)
