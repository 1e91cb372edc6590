"""Tokens through a policy's forward: what completions report, and what follows from stored trajectories."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from transformers import PreTrainedModel

from rlprm.data.conversation import Conversation
from rlprm.data.fed_tokens import expected_fed_tokens, fed_tokens
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ConfigError
from rlprm.policies.base import Completion
from rlprm.policies.decoding.choice import right_way, shares_rows
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, Task, Trajectory
from tests.toys import corridor
from tests.toys.trajectories import trajectory

CHAT = EpisodeSetting(round_limit=5, prompt="short")


class Counted(HFPolicy):
    """Adds up, per task, the tokens that completions report."""

    def __init__(self, model: PreTrainedModel, renderer: ChatRenderer, **changes: Any) -> None:
        super().__init__(model, renderer, **{"revision": "babbler", "max_new_tokens": 6, **changes})
        self.reported: dict[object, int] = {}

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        completions = super().act(conversations, seeds)
        for talk, completion in zip(conversations, completions, strict=True):
            self.reported[talk.owner] = self.reported.get(talk.owner, 0) + completion.fed_tokens
        return completions


@pytest.fixture
def fed(babbler: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each call of the model's forward: the new columns of the attention mask.

    Under a tree mask a token counts that sees itself; the others fill the row up.
    """
    assert right_way(babbler) == "kept"  # tries the model itself
    assert shares_rows(babbler)
    counts: list[int] = []
    forward = babbler.forward

    def watched(*arguments: Any, **options: Any) -> Any:
        new, mask = options["input_ids"].shape[1], options["attention_mask"]
        is_tree = mask.ndim == 4
        fed = mask[:, 0, :, -new:].diagonal(dim1=1, dim2=2) == 0 if is_tree else mask[:, -new:]
        counts.append(int(fed.sum()))
        return forward(*arguments, **options)

    monkeypatch.setattr(babbler, "forward", watched)
    return counts


def tasks() -> list[Task]:
    """Tasks of different prompts, whose episodes end after 1 to 4 actions."""
    made = {task.spec["goal"]: task for task in corridor.tasks(Split.TRAIN, 0, 40)}
    return [replace(t, spec={**t.spec, "budget": 1 + i}) for i, t in enumerate(list(made.values())[:4])]


def own_tokens(trajectories: Sequence[Trajectory]) -> dict[object, int]:
    """The tokens worked out from trajectories, per task."""
    totals: dict[object, int] = {}
    for t, count in zip(trajectories, fed_tokens(trajectories), strict=True):
        owner = (t.task.environment, t.task.id)
        totals[owner] = totals.get(owner, 0) + count
    return totals


@pytest.mark.parametrize("limit", [1, 6])
def test_completions_report_what_the_forward_took_and_trajectories_give_the_same(
    babbler: PreTrainedModel, renderer: ChatRenderer, fed: list[int], limit: int
) -> None:
    policy = Counted(babbler, renderer, max_new_tokens=limit)
    made = rollout([(task, sample) for task in tasks() for sample in range(6)], policy, CHAT)
    assert sum(policy.reported.values()) == sum(fed) == policy.tokens_encoded
    assert own_tokens(made) == policy.reported
    sampled = {t.action_mask[s.end] for t in made for s in t.steps}
    assert sampled == {0, 1}  # the limit ended some actions, the closing token others


def test_without_a_cache_completions_report_every_forward(
    babbler: PreTrainedModel, renderer: ChatRenderer, fed: list[int]
) -> None:
    policy = Counted(babbler, renderer, reuse_cache=False)
    made = rollout([(task, sample) for task in tasks() for sample in range(3)], policy, CHAT)
    assert sum(policy.reported.values()) == sum(fed)
    assert sum(own_tokens(made).values()) < sum(fed)


def test_a_new_conversation_does_not_make_the_others_be_read_again(
    babbler: PreTrainedModel, renderer: ChatRenderer, fed: list[int]
) -> None:
    policy = Counted(babbler, renderer)
    old, new = (Conversation(renderer, [{"role": "user", "content": text}]) for text in ("a", "b b b"))
    (first,) = policy.act([old], [0])
    old.act(first.ids, first.logprobs)
    before = len(old)
    old.observe("go on")
    fed.clear()
    again, start = policy.act([old, new], [1, 2])
    unfed = 1 if first.ids[-1] == renderer.closing_id else 2  # the closing token, and the last one sampled
    assert again.fed_tokens == len(old) - before + unfed + len(again.ids) - 1
    assert start.fed_tokens == len(new) + len(start.ids) - 1
    assert sum(fed) == again.fed_tokens + start.fed_tokens


def test_each_of_two_tasks_with_one_prompt_counts_it(
    babbler: PreTrainedModel, renderer: ChatRenderer, fed: list[int]
) -> None:
    policy = Counted(babbler, renderer)
    talks = [Conversation(renderer, [{"role": "user", "content": "q"}], owner=o) for o in ("a", "a", "b")]
    completions = policy.act(talks, [0, 1, 2])
    assert [c.fed_tokens - len(c.ids) + 1 for c in completions] == [len(talks[0]), 0, len(talks[0])]
    assert sum(fed) == sum(c.fed_tokens for c in completions) - len(talks[0])


def test_trajectories_that_part_share_what_came_before() -> None:
    one = trajectory(".aac.aaf..ac")
    # Turn 1 reads 1 token and feeds 2 sampled ones; turn 2 reads 2 more (the closing token, the observation)
    # and feeds 1; turn 3 reads 4 and feeds 1: all tokens but the newest one.
    assert fed_tokens([one]) == [1 + 2 + 2 + 1 + 4 + 1] == [len(one.token_ids) - 1]
    parted = replace(one, sample=1, token_ids=(*one.token_ids[:5], 99, *one.token_ids[6:]))
    # Another second action: the contexts of turns 1 and 2 are shared, the one of turn 3 is not.
    assert fed_tokens([one, parted]) == [11, 2 + 1 + 4 + 1]
    assert [expected_fed_tokens([one, parted], k) for k in (1, 2)] == [11, 19]
    elsewhere = replace(one, task=replace(one.task, id="other"))
    assert fed_tokens([one, elsewhere]) == [11, 11]
    assert fed_tokens([trajectory(".")]) == [0]


def test_the_expected_tokens_of_k_are_the_mean_over_all_draws(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    policy = Counted(babbler, renderer, max_new_tokens=1)  # short actions, of which some are equal
    row = rollout([(tasks()[2], sample) for sample in range(7)], policy, CHAT)
    assert sum(fed_tokens(row)) < sum(fed_tokens([t])[0] for t in row)
    for k in (1, 2, 3, 7):
        draws = [sum(fed_tokens(draw)) for draw in combinations(row, k)]
        assert expected_fed_tokens(row, k) == pytest.approx(sum(draws) / len(draws))
    with pytest.raises(ConfigError, match="best of 8"):
        expected_fed_tokens(row, 8)


def test_the_memory_of_counting_does_not_grow_with_the_length_of_contexts() -> None:
    made = [trajectory(("." * 490 + "a" * 9 + "c") * 20, sample=sample) for sample in range(20)]
    made = [replace(t, token_ids=tuple(i * t.sample for i in t.token_ids)) for t in made]  # nothing is shared
    tracemalloc.start()
    counts = fed_tokens(made)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counts == [len(t.token_ids) - 1 for t in made]
    assert peak < 1_000_000  # 400 contexts of 5,000 tokens on average would take 16 MB
