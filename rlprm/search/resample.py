"""Resampling: abandon an episode whose value has fallen, and start anew.

An episode is abandoned when its newest value ``v_t`` lies more than ``margin`` below a reference: the highest
of its values so far, ``v_0`` included (``reference: best``), or ``v_0`` (``reference: initial``). Its
remaining steps pay for another start. The result is the best finished episode: terminated before truncated
before failed, then by rank score. If none finished, the abandoned episode with the highest rank score is
closed as truncated and returned.

Episodes run side by side. The next one starts as soon as the budget pays for all that run up to the round
limit. Whether an episode is abandoned depends on its own values alone, so that the episodes are those of
sampling one after another, and only the last one can be cut off.

Episodes are never copied. The environment needs no ``fork``.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.errors import ConfigError
from rlprm.policies.base import Policy
from rlprm.scorers.base import Scorer
from rlprm.search.base import SearchResult
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, advance, best, check_sampling, episode_limit, run, score, start
from rlprm.types import EpisodeSetting, Task

SIDE_BY_SIDE = ("n",)

REFERENCES = ("best", "initial")


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    budget: int | None = None,
    n: int | None = None,
    margin: float = 0.2,
    reference: str = "best",
    aggregation: str = "last",
) -> list[SearchResult]:
    """Search all tasks; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples the episodes.
        scorer: scores every episode after each of its actions.
        setting: how episodes are run.
        run_seed: with task and sample number, determines each episode.
        budget: the most environment steps of one task.
        n: the most episodes that are started; None for as many as the budget pays for, or 16 without one.
        margin: how far ``v_t`` may fall, in units of the scorer; 0 or more.
        reference: from where: ``best`` or ``initial``.
        aggregation: from step scores to what finished episodes are ranked by.

    Raises:
        ConfigError: for ``n`` or ``budget`` below 1, a negative margin, an unknown reference or aggregation,
            or a greedy policy.
        DataError: for scores that are missing or not finite.
    """
    most = episode_limit(n, budget)
    if not margin >= 0:
        raise ConfigError(f"margin: got {margin}, allowed: 0 or more")
    if reference not in REFERENCES:
        raise ConfigError(f"reference: got {reference!r}, allowed: {', '.join(REFERENCES)}")
    check_sampling(policy, most)

    def plan(ledger: Ledger) -> Plan[Candidate]:
        return _plan(ledger, most, margin, reference, aggregation)

    return run(tasks, policy, scorer, setting, plan, run_seed=run_seed, budget=budget, grows=True)


def _plan(ledger: Ledger, most: int, margin: float, reference: str, aggregation: str) -> Plan[Candidate]:
    finished, running = list[Candidate](), list[Candidate]()
    abandoned: Candidate | None = None
    begun = 0
    while ledger.left:
        fresh = ledger.affordable(running, most - begun)
        started = yield from start(range(begun, begun + fresh))
        begun += fresh
        finished += [candidate for candidate in started if candidate.stop is not None]
        running += [candidate for candidate in started if candidate.stop is None]
        if not running:
            break
        yield from score((yield from advance(ledger, running)), aggregation)
        finished += [candidate for candidate in running if candidate.stop is not None]
        for candidate in [c for c in running if c.stop is None and _has_fallen(c, margin, reference)]:
            running.remove(candidate)
            if abandoned is None or candidate.rank > abandoned.rank:
                abandoned = candidate
        running = [candidate for candidate in running if candidate.stop is None]
    finished += [ledger.close(candidate) for candidate in running]
    ledger.keep(finished)
    if not finished and abandoned is not None:
        finished = [ledger.close(abandoned)]
    return best(finished)


def _has_fallen(candidate: Candidate, margin: float, reference: str) -> bool:
    """Whether the newest value lies more than the margin below the reference."""
    scores = candidate.scores
    if scores is None:
        return False
    before = max(scores.initial, *scores.values) if reference == "best" else scores.initial
    return before - scores.values[-1] > margin
