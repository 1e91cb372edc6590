"""Greedy decoding: one rollout per task with the most likely token everywhere. The baseline of all search."""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.errors import ConfigError
from rlprm.policies.base import Policy
from rlprm.rollouts.episode import run_counted
from rlprm.scorers.base import Scorer
from rlprm.search.base import SearchResult
from rlprm.types import EpisodeSetting, Task


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer | None,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
) -> list[SearchResult]:
    """Run one episode per task; there are no candidates, so the scorer is not used.

    Raises:
        ConfigError: if the policy's temperature is not 0.
    """
    if policy.temperature != 0:
        raise ConfigError(f"greedy decoding needs a policy at temperature 0, got {policy.temperature}")
    return [
        SearchResult(
            trajectory=trajectory,
            score=None,
            sampled_tokens=trajectory.action_tokens,
            policy_tokens=fed_tokens,
            scorer_tokens=0,
            env_steps=len(trajectory.steps),
        )
        for trajectory, fed_tokens in run_counted([(task, 0) for task in tasks], policy, setting, run_seed)
    ]
