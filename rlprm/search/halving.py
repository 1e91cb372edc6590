"""Successive halving: start N episodes, keep the better half by value at set depths, then start anew.

The episodes of a cohort advance side by side. When they have taken ``depths[0]`` actions, the better half of
those that are unfinished goes on, by the rank score of their steps so far; the same at ``depths[1]``, and so
on. An odd number is rounded up, equals are settled by the order of the samples. An episode that ends leaves
its cohort and cannot be dropped any more. The result is the best finished episode of all cohorts: terminated
before truncated before failed, then by rank score.

Without a budget there is one cohort. With a budget, further cohorts are started until the budget is gone. A
cohort has as many episodes, at most N, as the remaining steps pay for even if each lasts as long as it may.
Only a cohort of one can therefore be cut off.

The rule is Jamieson and Talwalkar's (arXiv 1502.07943), with episodes as arms and actions as the resource.
Episodes are dropped, never copied. The environment needs no ``fork``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rlprm.errors import ConfigError
from rlprm.policies.base import Policy
from rlprm.scorers.base import Scorer
from rlprm.search.base import SearchResult
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, advance, best, check_sampling, run, score, start
from rlprm.types import EpisodeSetting, Task

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
    depths: Sequence[int] = (2, 4, 8),
    aggregation: str = "last",
) -> list[SearchResult]:
    """Search all tasks; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples the episodes.
        scorer: scores every episode after each of its actions.
        setting: how episodes are run.
        run_seed: with task and sample number, determines each episode.
        budget: the most environment steps of one task; None for one cohort.
        n: the most episodes of a cohort.
        depths: numbers of actions, rising, after which half of a cohort is dropped.
        aggregation: from the step scores of an episode so far to what it is ranked by.

    Raises:
        ConfigError: for ``n`` or ``budget`` below 1, depths that do not rise from 1 or more, an unknown
            aggregation, or several episodes from a greedy policy.
        DataError: for scores that are missing or not finite.
    """
    if n < 1:
        raise ConfigError(f"n: got {n}, allowed: at least 1 episode")
    if any(a >= b for a, b in pairwise((0, *depths))):
        raise ConfigError(f"depths: got {list(depths)}, allowed: rising numbers of actions, from 1")
    check_sampling(policy, n)

    def plan(ledger: Ledger) -> Plan[Candidate]:
        return _plan(ledger, n, tuple(depths), aggregation)

    return run(tasks, policy, scorer, setting, plan, run_seed=run_seed, budget=budget, grows=True)


def _plan(ledger: Ledger, n: int, depths: Sequence[int], aggregation: str) -> Plan[Candidate]:
    finished = list[Candidate]()
    begun = 0
    while ledger.left and (begun == 0 or ledger.has_budget):
        size = max(
            k for k in range(1, n + 1) if k == 1 or _cost(k, depths, ledger.round_limit) <= ledger.left
        )
        cohort = yield from start(range(begun, begun + size))
        begun += size
        finished += [candidate for candidate in cohort if candidate.stop is not None]
        cohort = [candidate for candidate in cohort if candidate.stop is None]
        if not cohort:  # an environment that does not start takes no step: another try might have no end
            break
        finished += yield from _run(ledger, cohort, depths, aggregation)
    return best(finished)


def _run(
    ledger: Ledger, cohort: list[Candidate], depths: Sequence[int], aggregation: str
) -> Plan[list[Candidate]]:
    """Run a cohort to its end; return its finished episodes."""
    finished = list[Candidate]()
    while cohort and ledger.left:
        moved = yield from advance(ledger, cohort)
        yield from score(moved, aggregation)
        finished += [candidate for candidate in cohort if candidate.stop is not None]
        cohort = [candidate for candidate in cohort if candidate.stop is None]
        if cohort and cohort[0].turn in depths:
            cohort = sorted(cohort, key=lambda candidate: -candidate.rank)[: (len(cohort) + 1) // 2]
    finished += [ledger.close(candidate) for candidate in cohort]
    ledger.keep(finished)
    return finished


def _cost(size: int, depths: Sequence[int], round_limit: int) -> int:
    """Return the steps that a cohort takes at most: all its episodes reach each depth and the round limit."""
    cost, before = 0, 0
    for depth in (*(d for d in depths if d < round_limit), round_limit):
        cost += size * (depth - before)
        size, before = (size + 1) // 2, depth
    return cost
