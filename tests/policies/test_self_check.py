"""Some of what the first wave stores is read again by one whole forward, cheaply; a mistake stops the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from rlprm.data.rendering import ChatRenderer
from rlprm.data.store import TrajectoryStore
from rlprm.errors import ConfigError, MismatchError
from rlprm.policies import hf as hf_module
from rlprm.policies.hf import HFPolicy
from rlprm.policies.self_check import FirstWaveCheck, Reread, compare_stored
from rlprm.rollouts.collection import collect
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, StopReason, Task, Trajectory
from tests.architectures.tiny import tiny_model
from tests.toys import corridor
from tests.toys.agents import SeededPolicy

CHAT = EpisodeSetting(round_limit=4, prompt="short")


def hf(model: PreTrainedModel, renderer: ChatRenderer, **changes: object) -> HFPolicy:
    settings: dict[str, object] = {"revision": "babbler", "temperature": 1.0, "max_new_tokens": 6}
    return HFPolicy(model, renderer, **{**settings, **changes})  # type: ignore[arg-type]


def tasks(count: int = 4) -> list[Task]:
    listed = corridor.tasks(Split.TRAIN, 0, count)
    return [replace(t, spec={**t.spec, "budget": 1 + i}) for i, t in enumerate(listed)]


def wave(policy: HFPolicy, samples: int = 2) -> list[Trajectory]:
    return rollout([(task, sample) for task in tasks() for sample in range(samples)], policy, CHAT)


def windowed(renderer: ChatRenderer) -> PreTrainedModel:
    """A model with a sliding window that closes some messages early, which leaves holes in a kept cache."""
    model = tiny_model("mistral", len(renderer.tokenizer))
    head = torch.nn.Linear(model.config.hidden_size, len(renderer.tokenizer))
    with torch.no_grad():
        head.weight.copy_(2 * model.lm_head.weight)
        head.bias.zero_()[renderer.closing_id] = 5.0
    model.lm_head = head
    return model.eval()


# --- what is right ---


@pytest.mark.parametrize("temperature", [0.0, 0.05, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("way", ["kept", "turn", "whole"])
def test_all_that_was_sampled_agrees_at_every_temperature_and_nothing_else_is_compared(
    babbler: PreTrainedModel, renderer: ChatRenderer, temperature: float, way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(hf_module, "right_way", lambda _: way)
    policy = hf(babbler, renderer, temperature=temperature)
    episodes = wave(policy)
    found = compare_stored(policy, episodes)
    assert found is not None
    assert found.largest < 1e-4
    assert found.tokens == sum(sum(t.action_mask) for t in episodes)
    if temperature > 0:  # closing tokens that the limit forced were there, and were left out
        assert 0 in {t.action_mask[s.end] for t in episodes for s in t.steps}


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_half_precision_is_judged_by_its_own_bound(
    babbler: PreTrainedModel, renderer: ChatRenderer, how: str
) -> None:
    model = tiny_model("llama", len(renderer.tokenizer))
    autocast = torch.autocast("cpu", torch.bfloat16) if how == "autocast" else nullcontext()
    policy = hf(model.to(torch.bfloat16) if how == "weights" else model, renderer)
    with autocast:
        found = compare_stored(policy, wave(policy))
    assert found is not None
    assert found.largest > 1e-3  # float32's bound would refuse it


def test_a_low_temperature_is_no_mistake_and_a_high_one_hides_none() -> None:
    """Rounding of logits by 0.0004 becomes 0.02 nats at temperature 0.02; 0.002 at temperature 4 is 0.008."""
    assert compare_stored(Echo(0.02), [stored(temperature=0.02)]) is not None
    with pytest.raises(MismatchError):
        compare_stored(Echo(0.0005), [stored(temperature=4.0)])
    assert compare_stored(Echo(0.0005), [stored(temperature=1.0)]) is not None


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_model_whose_logits_cannot_be_computed_apart_is_read_by_its_own_forward(
    babbler: PreTrainedModel, renderer: ChatRenderer, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConfigError("models of this type change logits")

    policy = hf(babbler, renderer, temperature=temperature)
    episodes = wave(policy)
    monkeypatch.setattr("rlprm.policies.decoding.whole.own_logits", refuse)
    found = compare_stored(policy, episodes)
    assert found is not None
    assert found.largest < 1e-4


# --- what is wrong ---


def test_other_weights_are_named(babbler: PreTrainedModel, renderer: ChatRenderer) -> None:
    episodes = wave(hf(babbler, renderer))
    other = tiny_model("qwen2", len(renderer.tokenizer))
    with pytest.raises(MismatchError, match=r"allowed for float32: 0\.001 .*cause: other weights, another t"):
        compare_stored(hf(other, renderer), episodes)


def test_another_temperature_is_named(babbler: PreTrainedModel, renderer: ChatRenderer) -> None:
    policy = hf(babbler, renderer, temperature=0.5)
    episodes = [replace(t, temperature=1.0) for t in wave(policy)]
    with pytest.raises(MismatchError, match="another temperature"):
        compare_stored(policy, episodes)


@pytest.mark.trap("sliding window in a cache with holes")
def test_trap_a_cache_that_is_wrong_from_the_second_turn_on_is_named(
    renderer: ChatRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_module, "right_way", lambda _: "kept")  # as if the trial had overlooked it
    policy = hf(windowed(renderer), renderer)
    with pytest.raises(MismatchError, match=r"kept from turn to turn are wrong .* reuse_cache false"):
        compare_stored(policy, wave(policy))


def test_a_number_that_is_none_is_a_mistake() -> None:
    with pytest.raises(MismatchError):
        compare_stored(Echo(float("nan")), [stored(tokens=3)])


# --- the first wave, and no other ---


class Echo:
    """Reads back what is stored, off by a number; counts what it is asked to read."""

    def __init__(self, off: float = 0.0) -> None:
        self.off = off
        self.asked: list[Sequence[Trajectory]] = []

    def __getattr__(self, name: str) -> object:  # the rest of a policy is not asked for
        raise AttributeError(name)

    def reread(self, trajectories: Sequence[Trajectory]) -> Reread:
        self.asked.append(trajectories)
        rows = [
            [value + self.off for value, mask in zip(t.logprobs, t.action_mask, strict=True) if mask]
            for t in trajectories
        ]
        return Reread(rows, torch.float32)


def stored(
    tokens: int = 12, *, temperature: float = 1.0, stop: StopReason = StopReason.DECLARED
) -> Trajectory:
    """An episode of some tokens, the second half of which were sampled."""
    (trajectory,) = rollout([(tasks()[0], 0)], SeededPolicy(), CHAT)
    half = tokens - tokens // 2
    return replace(
        trajectory, token_ids=(1,) * tokens, action_mask=(0,) * half + (1,) * (tokens // 2),
        logprobs=(0.0,) * half + (-1.0,) * (tokens // 2), temperature=temperature, stop=stop,
    )  # fmt: skip


def test_the_first_wave_with_an_episode_that_worked_is_checked_and_no_other() -> None:
    check, policy = FirstWaveCheck(), Echo()
    check(policy, [])  # type: ignore[arg-type]
    check(policy, [stored(stop=StopReason.ERROR)])  # type: ignore[arg-type]
    assert policy.asked == []
    for _ in range(2):
        check(policy, [stored(), stored(stop=StopReason.ERROR)])  # type: ignore[arg-type]
    assert [len(asked) for asked in policy.asked] == [1]


def test_a_policy_without_probabilities_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    check = FirstWaveCheck()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            check(SeededPolicy(), [stored()])
    assert [r.message for r in caplog.records if "nothing can be checked" in r.message] == [
        "the policy gives no probabilities of stored tokens: nothing can be checked"
    ]


@given(st.lists(st.integers(2, 400), min_size=1, max_size=60))
def test_the_cost_is_four_episodes_or_a_fiftieth_of_the_wave(lengths: list[int]) -> None:
    base, policy = stored(), Echo()
    wave_of = [
        replace(base, token_ids=(1,) * n, action_mask=(0,) * (n - 1) + (1,), logprobs=(0.0,) * n)
        for n in lengths
    ]
    FirstWaveCheck()(policy, wave_of)  # type: ignore[arg-type]
    (asked,) = policy.asked
    read = [len(t.token_ids) for t in asked]
    assert read[0] == max(lengths)
    assert len(read) >= min(4, len(lengths))
    assert len(read) <= 8
    if len(read) > 4:
        assert sum(read) <= 0.02 * sum(lengths)
    if len(lengths) > 1:
        assert read[1] == min(lengths)


def test_a_collection_stops_before_the_wrong_wave_is_stored(
    renderer: ChatRenderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_module, "right_way", lambda _: "kept")
    with pytest.raises(MismatchError, match="self-check"):
        gather(hf(windowed(renderer), renderer), tmp_path)
    assert not TrajectoryStore.open(str(tmp_path)).has(0)


def test_a_collection_is_checked_once(
    babbler: PreTrainedModel, renderer: ChatRenderer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        gather(hf(babbler, renderer), tmp_path)
    (line,) = [r.message for r in caplog.records if r.message.startswith("self-check:")]
    assert "of 4 episodes differ by" in line


def gather(policy: HFPolicy, folder: Path) -> TrajectoryStore:
    return collect(
        policy, tasks(), CHAT, folder=str(folder), samples_per_task=2, wave_size=4, seed=0,
        meta={"environment": "tests.toys.corridor"},
    )  # fmt: skip
