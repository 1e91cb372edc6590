"""Best of k at each step: one episode, and at each turn the best of k sampled actions.

A PRM reads ``v_t`` at the end of the action, before the environment answers. The sampled actions are
therefore scored without being carried out. Only the best one is carried out, so that a step of the episode is
one environment step, and the environment needs no ``fork``. A scorer that reads observations judges an action
by the observations before it. Equal actions are merged before scoring, and among equal scores the first
sample is taken. There is no way back: the result is the one episode, however it ends.

Scoring actions before they are carried out is the difference to a beam 1×k, which takes k environment steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.errors import ConfigError
from rlprm.policies.base import Policy
from rlprm.scorers.base import Scorer
from rlprm.search.base import SearchResult
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, Step, check_sampling, merge, run, sample, score, start
from rlprm.types import EpisodeSetting, Task


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    budget: int | None = None,
    k: int = 4,
    aggregation: str = "last",
) -> list[SearchResult]:
    """Search all tasks; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples actions.
        scorer: scores actions that are not carried out yet.
        setting: how episodes are run.
        run_seed: with a task's id, determines all its random numbers.
        budget: the most environment steps of one task; None for the length of the episode.
        k: actions sampled at each turn.
        aggregation: from the step scores up to an action to what the action is ranked by.

    Raises:
        ConfigError: for ``k`` or ``budget`` below 1, an unknown aggregation, or a greedy policy for ``k``
            above 1.
        DataError: for scores that are missing or not finite.
    """
    if k < 1:
        raise ConfigError(f"k: got {k}, allowed: at least 1 action")
    check_sampling(policy, k)

    def plan(ledger: Ledger) -> Plan[Candidate]:
        return _plan(ledger, k, aggregation)

    return run(tasks, policy, scorer, setting, plan, run_seed=run_seed, budget=budget, grows=True)


def _plan(ledger: Ledger, k: int, aggregation: str) -> Plan[Candidate]:
    (episode,) = yield from start([0])
    while episode.stop is None and ledger.left:
        completions = yield from sample([(episode, branch) for branch in range(k)])
        actions = merge([episode] * k, completions)
        previews = [ledger.preview(episode, completion, samples) for _, completion, samples in actions]
        yield from score(previews, aggregation)
        best = max(range(len(previews)), key=lambda index: previews[index].rank)
        episode.adopt(previews[best])
        yield Step([(episode, actions[best][1])], fork=False)
        ledger.note(episode, executed=True, kept=True)
    return ledger.close(episode)
