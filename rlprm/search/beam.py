"""Beam search over an agent's steps (arXiv 2511.08325): keep N partial trajectories, try M actions in each.

One round, for every task at once: sample actions, merge equal ones, carry the
rest out in copies of the environment, score, rank by the newest step's promise
``v_t`` (or by another rule over ``v_1 ... v_t``), keep N. From the paper: N, M, the ranking
by ``v_t``, and that the highest-scored finished trajectory is returned. Decided here, where the
paper is silent:

* The root is expanded N·M times, so that the first ranking is as wide as the others.
* Samples of one parent whose action is the same are one candidate. The merge comes
  before the ranking, so that copies do not fill the beam, and before the environment,
  which would carry out the same action twice. Beams differ in their history of actions from
  then on, so two parents never have the same child.
* Equal scores are settled by the order of sampling, first each parent's first
  sample, then each parent's second: a scorer without an opinion keeps the beam wide.
* Walking down the ranking until N unfinished candidates are kept, a finished one
  moves to the finished pool and takes no slot.
* With ``max_children``, an unfinished candidate is dropped if that many of its siblings are kept already.
  The limit keeps the beam from filling with near-copies. It does not apply to the first actions, which are
  all siblings.
* A task is done when N of its candidates have terminated, or none is unfinished.
  Candidates that were cut off (a limit) do not count towards N: they are returned
  only if none terminated, and failed ones only if there are no others.
* With a ``budget``, a round samples at most as many actions as steps are left. When none is left, the kept
  candidates are closed as truncated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rlprm.errors import ConfigError
from rlprm.policies.base import Policy
from rlprm.scorers.base import Scorer
from rlprm.search.base import EndRank, SearchResult, end_rank
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, best, check_sampling, expand, run, score, start
from rlprm.types import EpisodeSetting, Task

SIDE_BY_SIDE = ("n", "m")


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    budget: int | None = None,
    n: int = 4,
    m: int = 4,
    max_children: int | None = None,
    aggregation: str = "last",
) -> list[SearchResult]:
    """Search all tasks in lock-step: one call of policy and scorer per depth; see ``SearchModule``.

    Args:
        tasks: what to solve.
        policy: samples actions; it is handed a conversation once for every action wanted of it.
        scorer: scores candidates, unfinished ones included.
        setting: how episodes are run.
        run_seed: with a task's id, determines all its random numbers.
        budget: the most environment steps of one task; None for no limit.
        n: partial trajectories kept after each round.
        m: actions sampled for each of them.
        max_children: the most unfinished children of one parent that are kept; None for no limit.
        aggregation: from a candidate's step scores to what it is ranked by: ``last`` is the paper's, see
            ``rlprm.functional.aggregation`` for others.

    Raises:
        ConfigError: for ``n``, ``m``, ``max_children`` or ``budget`` below 1, several samples from a greedy
            policy, or an unknown rule.
        DataError: for scores that are missing or not finite.
    """
    if n < 1 or m < 1:
        raise ConfigError(f"a beam needs n and m of at least 1, got {n} and {m}")
    if max_children is not None and max_children < 1:
        raise ConfigError(f"max_children: got {max_children}, allowed: at least 1, or no limit")
    check_sampling(policy, n * m)

    def plan(ledger: Ledger) -> Plan[Candidate]:
        return _plan(ledger, n, m, max_children, aggregation)

    return run(tasks, policy, scorer, setting, plan, run_seed=run_seed, budget=budget, grows=True)


def _plan(ledger: Ledger, n: int, m: int, max_children: int | None, aggregation: str) -> Plan[Candidate]:
    (root,) = yield from start([0])
    if root.stop is not None:
        return root
    alive, finished = [root], list[Candidate]()
    at_root = True
    while alive and ledger.left:
        branches = [
            (parent, slot * m + sample)
            for sample in range(n * m if at_root else m)
            for slot, parent in enumerate(alive)
        ]
        children = yield from expand(ledger, branches)
        yield from score(children, aggregation)
        alive, ended = _select(children, n, None if at_root else max_children)
        del branches, children  # environments of dropped candidates end before the next copies are made
        ledger.keep([*alive, *ended])
        finished += ended
        if sum(end_rank(candidate.stop) is EndRank.TERMINATED for candidate in finished) >= n:
            ledger.keep(alive, kept=False)
            alive = []
        at_root = False
    finished += [ledger.close(candidate) for candidate in alive]
    return best(finished)


def _select(
    children: Sequence[Candidate], n: int, max_children: int | None
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the n best unfinished children, and the finished ones that rank among them."""
    alive, ended = list[Candidate](), list[Candidate]()
    siblings = Counter[int | None]()
    for candidate in sorted(children, key=lambda child: -child.rank):  # stable
        if len(alive) == n:
            break
        if candidate.stop is not None:
            ended.append(candidate)
        elif max_children is None or siblings[candidate.parent] < max_children:
            siblings[candidate.parent] += 1
            alive.append(candidate)
    return alive, ended
