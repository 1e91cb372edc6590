"""A policy whose memory is too small for all conversations acts in halves, with the same episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.errors import OutOfDeviceMemoryError
from rlprm.models.loading import load_causal_lm
from rlprm.policies.base import Completion
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, Trajectory
from tests.toys import agents


class Small(HFPolicy):
    """Has memory for so many conversations."""

    room = 100

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        self.asked.append(len(conversations))
        if len(conversations) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().act(conversations, seeds)


def run(folder: Path, room: int) -> tuple[list[Trajectory], list[int]]:
    """The episodes of six tasks, and of how many conversations each call was."""
    model = load_causal_lm(str(folder), dtype="float32")
    policy = Small(model, agents.renderer(), revision="small", max_new_tokens=4)
    policy.room, policy.asked = room, []
    tasks = envs.load("tests.toys.corridor").tasks(Split.TRAIN, 0, 6, length=4)
    return rollout([(task, 0) for task in tasks], policy, EpisodeSetting(round_limit=3)), policy.asked


def test_halves_bring_the_same_episodes_and_are_kept_to(
    tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, asked = run(tiny_folder, 6)
    assert asked == [6, 6, 6]
    halves, asked = run(tiny_folder, 3)
    assert asked == [6, *[3, 3] * 3], "tried in full once"
    assert [t.token_ids for t in halves] == [t.token_ids for t in whole]
    for one, other in zip(halves, whole, strict=True):
        assert one.error is None
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    assert "out of memory with 6 conversations at a time: from here on 3" in caplog.text


def test_too_little_for_half_is_one_line_with_the_setting(tiny_folder: Path) -> None:
    with pytest.raises(OutOfDeviceMemoryError, match=r"wave_size: out of memory at 3; lower it and run"):
        run(tiny_folder, 2)
