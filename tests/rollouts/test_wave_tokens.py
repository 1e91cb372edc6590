"""How many episodes run side by side is bounded by tokens, and changes no trajectory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from transformers import PreTrainedModel

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.policies.base import Completion
from rlprm.policies.hf import WAVE_TOKENS, HFPolicy
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, Trajectory
from tests.toys import corridor
from tests.toys.agents import SeededPolicy

JOBS = [(task, sample) for task in corridor.tasks(Split.TRAIN, 0, 4) for sample in range(3)]
ACTIONS = ("right", "finish", "left", "wait")


class Bounded(SeededPolicy):
    """Notes which tasks it acts in together."""

    side_by_side = 5

    def __init__(self) -> None:
        super().__init__(ACTIONS)
        self.rows: list[int] = []

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        self.rows.append(len(conversations))
        return super().act(conversations, seeds)


def facts(found: Sequence[Trajectory]) -> list[object]:
    return [(t.task.id, t.sample, t.token_ids, t.action_mask, t.outcome, t.stop) for t in found]


def test_a_policy_bounds_the_episodes_of_a_wave() -> None:
    policy, ended = Bounded(), []
    found = rollout(JOBS, policy, EpisodeSetting(), on_end=ended.append)
    assert policy.rows[0] == max(policy.rows) == 5
    assert sum(ended) == len(JOBS)
    assert all(number > 0 for number in ended)
    assert facts(found) == facts(rollout(JOBS, SeededPolicy(ACTIONS), EpisodeSetting()))


def test_the_bound_changes_no_trajectory_of_a_model(babbler: PreTrainedModel, renderer: ChatRenderer) -> None:
    found = []
    for wave_tokens in (None, 400, 1):
        policy = HFPolicy(
            babbler, renderer, revision="babbler", max_new_tokens=5, context_length=100,
            wave_tokens=wave_tokens,
        )  # fmt: skip
        found.append(facts(rollout(JOBS, policy, EpisodeSetting(round_limit=3))))
    assert found[0] == found[1] == found[2]
    assert len(set(map(str, found[0]))) == len(JOBS)


@pytest.mark.parametrize(
    ("wave_tokens", "context_length", "most"),
    [(None, 512, WAVE_TOKENS["cpu"] // 512), (1000, 300, 3), (10, 300, 1)],
)
def test_the_bound_counts_whole_contexts(
    babbler: PreTrainedModel,
    renderer: ChatRenderer,
    wave_tokens: int | None,
    context_length: int,
    most: int,
) -> None:
    policy = HFPolicy(
        babbler, renderer, revision="babbler", context_length=context_length, wave_tokens=wave_tokens
    )
    assert policy.side_by_side == policy.at_temperature(0.0).side_by_side == most
