"""Both modes write the same, a row depends on itself alone, and what is stored is what was sampled."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from rlprm.data.conversation import Conversation
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import DataError
from rlprm.policies.base import Completion
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, StopReason, Task, Trajectory
from tests.toys import corridor

CHAT = EpisodeSetting(round_limit=5, prompt="short")


def hf(model: PreTrainedModel, renderer: ChatRenderer, **changes: object) -> HFPolicy:
    settings: dict[str, object] = {"revision": "babbler", "temperature": 1.0, "max_new_tokens": 6}
    return HFPolicy(model, renderer, **{**settings, **changes})  # type: ignore[arg-type]


def tasks(count: int = 6) -> list[Task]:
    """Episodes that end after 1, 2, 3, ... actions, so that rows leave the batch at different turns."""
    listed = corridor.tasks(Split.TRAIN, 0, count)
    return [replace(t, spec={**t.spec, "budget": 1 + i}) for i, t in enumerate(listed)]


def jobs(samples: int, count: int = 6) -> list[tuple[Task, int]]:
    return [(task, sample) for task in tasks(count) for sample in range(samples)]


def assert_same(a: Trajectory, b: Trajectory) -> None:
    assert a.token_ids == b.token_ids
    assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    assert replace(a, logprobs=()) == replace(b, logprobs=())


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_keeping_the_cache_changes_no_token(
    babbler: PreTrainedModel, renderer: ChatRenderer, temperature: float
) -> None:
    slow = hf(babbler, renderer, temperature=temperature, reuse_cache=False)
    fast = hf(babbler, renderer, temperature=temperature)
    expected, got = rollout(jobs(4), slow, CHAT), rollout(jobs(4), fast, CHAT)
    for a, b in zip(expected, got, strict=True):
        assert_same(a, b)
    # The batch held what is hard: rows that leave early, ragged actions, actions cut off.
    assert {len(t.steps) for t in got} == {1, 2, 3, 4, 5}
    assert {t.stop for t in got} == {StopReason.ENV_LIMIT, StopReason.ROUND_LIMIT}
    if temperature > 0:
        assert len({s.end - s.start for t in got for s in t.steps}) >= 5
        assert {t.action_mask[s.end] for t in got for s in t.steps} == {0, 1}
    assert fast.tokens_encoded < 0.75 * slow.tokens_encoded


def test_keeping_the_cache_changes_no_token_when_every_action_is_cut_off(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    for limit in (1, 2):
        policies = [hf(babbler, renderer, max_new_tokens=limit, reuse_cache=reuse) for reuse in (False, True)]
        expected, got = (rollout(jobs(3), policy, CHAT) for policy in policies)
        for a, b in zip(expected, got, strict=True):
            assert_same(a, b)


def test_an_episode_does_not_depend_on_those_beside_it(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    together = rollout(jobs(3), hf(babbler, renderer), CHAT)
    backwards = rollout(jobs(3)[::-1], hf(babbler, renderer), CHAT)[::-1]
    for job, a, b in zip(jobs(3), together, backwards, strict=True):
        (alone,) = rollout([job], hf(babbler, renderer), CHAT)
        assert_same(alone, a)
        assert_same(alone, b)


def test_samples_of_one_task_differ_and_another_run_seed_gives_others(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    four = [(tasks()[-1], sample) for sample in range(4)]
    runs = [rollout(four, hf(babbler, renderer), CHAT, run_seed=seed) for seed in (0, 1)]
    assert len({t.token_ids for run in runs for t in run}) == 8
    assert rollout(four, hf(babbler, renderer), CHAT) == runs[0]


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.trap("sampler mismatch")
def test_trap_stored_logprobs_are_those_of_one_forward_over_the_stored_ids(
    babbler: PreTrainedModel, renderer: ChatRenderer, temperature: float
) -> None:
    for trajectory in rollout(jobs(2), hf(babbler, renderer, temperature=temperature), CHAT):
        ids = torch.tensor([trajectory.token_ids])
        with torch.no_grad():
            logits = babbler(input_ids=ids).logits[0, :-1]
        logprobs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
        expected = [0.0, *logprobs.gather(1, ids[0, 1:, None])[:, 0].tolist()]
        for mask, stored, recomputed in zip(
            trajectory.action_mask, trajectory.logprobs, expected, strict=True
        ):
            assert stored == (pytest.approx(recomputed, abs=1e-4) if mask else 0.0)


def conversation(renderer: ChatRenderer, question: str) -> Conversation:
    return Conversation(renderer, [{"role": "user", "content": question}])


def act(policy: HFPolicy, *conversations: Conversation, seeds: range | None = None) -> list[Completion]:
    completions = policy.act(conversations, seeds or range(len(conversations)))
    for talk, completion in zip(conversations, completions, strict=True):
        talk.act(completion.ids, completion.logprobs)
    return completions


def branch(
    policy: HFPolicy, renderer: ChatRenderer, *, stranger: bool = False, forget: bool = False
) -> list[Completion]:
    """Act, then go on from some of the conversations, in several branches and another order."""
    roots = [conversation(renderer, question) for question in ("a", "b b b b b", "c c")]
    act(policy, *roots)
    branches = [roots[2].fork(), roots[0].fork(), roots[2].fork(), roots[2]]
    for number, each in enumerate(branches):
        each.observe("short" if number < 3 else "somewhat longer than the others")
    if stranger:
        branches.append(conversation(renderer, "who are you"))
    if forget:
        policy.clear()
    return act(policy, *branches, seeds=range(10, 10 + len(branches)))


@pytest.mark.parametrize("stranger", [False, True])
def test_branches_of_one_conversation_continue_its_cache(
    babbler: PreTrainedModel, renderer: ChatRenderer, stranger: bool
) -> None:
    slow, fast = hf(babbler, renderer, reuse_cache=False), hf(babbler, renderer)
    expected, got = branch(slow, renderer, stranger=stranger), branch(fast, renderer, stranger=stranger)
    assert [c.ids for c in got] == [c.ids for c in expected]
    for a, b in zip(expected, got, strict=True):
        assert b.logprobs == pytest.approx(a.logprobs, abs=1e-4)


def sit_out(policy: HFPolicy, renderer: ChatRenderer) -> list[Completion]:
    """One of two conversations waits for a turn, so that the newest cache knows nothing of it."""
    busy, waiting = conversation(renderer, "busy"), conversation(renderer, "waiting for a while")
    act(policy, busy, waiting)
    for each in (busy, waiting):
        each.observe("go on")
    act(policy, busy, seeds=range(5, 6))
    busy.observe("and on")
    return act(policy, busy, waiting, seeds=range(7, 9))


def test_a_conversation_that_sat_out_a_turn_is_encoded_anew(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    slow, fast = hf(babbler, renderer, reuse_cache=False), hf(babbler, renderer)
    assert [c.ids for c in sit_out(fast, renderer)] == [c.ids for c in sit_out(slow, renderer)]


def test_a_forgotten_cache_changes_only_the_cost(babbler: PreTrainedModel, renderer: ChatRenderer) -> None:
    kept, forgotten = hf(babbler, renderer), hf(babbler, renderer)
    expected, got = branch(kept, renderer), branch(forgotten, renderer, forget=True)
    assert [c.ids for c in got] == [c.ids for c in expected]
    assert forgotten.tokens_encoded > kept.tokens_encoded


def test_with_the_cache_every_token_is_encoded_once(babbler: PreTrainedModel, renderer: ChatRenderer) -> None:
    policy = hf(babbler, renderer)
    (trajectory,) = rollout(jobs(1)[-1:], policy, CHAT)
    newest = trajectory.steps[-1]
    closing_was_sampled = trajectory.action_mask[newest.end]
    # The newest sampled token has not been fed yet, nor the closing token after an action cut off.
    unfed = 1 if closing_was_sampled else 2
    assert policy.tokens_encoded == len(trajectory.token_ids) - unfed


def test_a_context_that_conversations_share_is_encoded_once(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    policy = hf(babbler, renderer)
    talks = [conversation(renderer, "the same question") for _ in range(8)]
    prompt = len(talks[0])
    completions = act(policy, *talks)
    fed = sum(len(c.ids) - 1 for c in completions)
    assert policy.tokens_encoded == prompt + fed
    assert len({c.ids for c in completions}) > 1


def test_an_action_ends_with_its_first_closing_token_or_at_the_limit(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    talks = [conversation(renderer, "x") for _ in range(64)]
    completions = act(hf(babbler, renderer, max_new_tokens=5), *talks)
    closed = [c for c in completions if c.ids[-1] == renderer.closing_id]
    assert 3 < len(closed) < 64
    for completion in completions:
        assert renderer.closing_id not in completion.ids[:-1]
        assert len(completion.logprobs) == len(completion.ids)
        assert len(completion.ids) == 5 or completion in closed


@pytest.fixture(scope="module")
def stopper(babbler: PreTrainedModel, renderer: ChatRenderer) -> PreTrainedModel:
    """The babbler, as an instruct model that also ends texts with ``<|endoftext|>``, which it likes to do."""
    model = deepcopy(babbler)
    with torch.no_grad():
        model.lm_head.bias[stop_id(renderer)] = 5.5
    model.generation_config.eos_token_id = [renderer.closing_id, stop_id(renderer)]
    return model


def stop_id(renderer: ChatRenderer) -> int:
    return int(renderer.tokenizer.convert_tokens_to_ids("<|endoftext|>"))


def test_an_action_ends_with_any_token_that_ends_texts_of_the_model(
    stopper: PreTrainedModel, renderer: ChatRenderer
) -> None:
    talks = [conversation(renderer, "x") for _ in range(64)]
    ends = {renderer.closing_id, stop_id(renderer)}
    completions = act(hf(stopper, renderer, max_new_tokens=5), *talks)
    ended = [c for c in completions if c.ids[-1] in ends]
    assert {c.ids[-1] for c in ended} == ends
    assert 10 < len(ended) < 64
    for completion in completions:
        assert not ends & set(completion.ids[:-1])
        assert len(completion.logprobs) == len(completion.ids)
        assert len(completion.ids) == 5 or completion in ended


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_a_token_that_ended_an_action_is_stored_as_sampled_and_is_not_in_its_text(
    stopper: PreTrainedModel, renderer: ChatRenderer, temperature: float
) -> None:
    slow = hf(stopper, renderer, temperature=temperature, reuse_cache=False)
    fast = hf(stopper, renderer, temperature=temperature).at_temperature(temperature)
    expected, got = rollout(jobs(4), slow, CHAT), rollout(jobs(4), fast, CHAT)
    stop, closing, stopped = stop_id(renderer), renderer.closing_id, 0
    for a, b in zip(expected, got, strict=True):
        assert_same(a, b)
        ids = torch.tensor([b.token_ids])
        with torch.no_grad():
            logprobs = torch.log_softmax(stopper(input_ids=ids).logits[0, :-1] / temperature, dim=-1)
        said = [m["content"] for m in b.messages if m["role"] == "assistant"]
        for step, text in zip(b.steps, said, strict=True):
            assert b.token_ids[step.end] == closing
            at = step.end - 1
            if step.start > at or b.token_ids[at] != stop:
                continue
            stopped += 1
            assert b.action_mask[step.start : step.end + 1] == (1,) * (step.end - step.start) + (0,)
            assert b.logprobs[at] == pytest.approx(float(logprobs[at - 1, stop]), abs=1e-4)
            assert text == renderer.action_text(b.token_ids[step.start : at])
            whole = b.token_ids[step.start : step.end + 1]
            assert text == fast.renderer.action_text(whole) == fast.renderer.action_text(whole[:-1])
    assert stopped > 10


@pytest.mark.parametrize("as_list", [False, True])
def test_a_model_with_no_other_end_than_the_closing_token_keeps_its_renderer(
    babbler: PreTrainedModel, renderer: ChatRenderer, as_list: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [renderer.closing_id] if as_list else renderer.closing_id
    monkeypatch.setattr(babbler.generation_config, "eos_token_id", ends)
    assert hf(babbler, renderer).renderer is renderer


def test_the_context_length_is_the_models_own_unless_given(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    assert hf(babbler, renderer).context_length == 512
    assert hf(babbler, renderer, context_length=99).context_length == 99


def test_logits_that_are_not_finite_are_an_error_not_a_random_action(
    babbler: PreTrainedModel, renderer: ChatRenderer
) -> None:
    policy = hf(babbler, renderer)
    bias = babbler.lm_head.bias.detach().clone()
    try:
        with torch.no_grad():
            babbler.lm_head.bias[7] = float("nan")
        with pytest.raises(DataError, match="not finite"):
            policy.act([conversation(renderer, "x")], [0])
    finally:
        with torch.no_grad():
            babbler.lm_head.bias.copy_(bias)
