"""Greedy decoding: one rollout per task with the most likely token everywhere. The baseline of all search."""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.errors import ConfigError
from rlprm.policies.base import Policy
from rlprm.scorers.base import Scorer
from rlprm.search.base import SearchResult
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, advance, run, start
from rlprm.types import EpisodeSetting, Task

SIDE_BY_SIDE = ()


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer | None,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    budget: int | None = None,
) -> list[SearchResult]:
    """Run one episode per task; there are no candidates, so the scorer is not used.

    Raises:
        ConfigError: if the policy's temperature is not 0, or for a budget below 1.
    """
    if policy.temperature != 0:
        raise ConfigError(f"greedy decoding needs a policy at temperature 0, got {policy.temperature}")
    return run(tasks, policy, None, setting, _plan, run_seed=run_seed, budget=budget, grows=False)


def _plan(ledger: Ledger) -> Plan[Candidate]:
    (episode,) = yield from start([0])
    while episode.stop is None and ledger.left:
        yield from advance(ledger, [episode])
    return ledger.close(episode)
