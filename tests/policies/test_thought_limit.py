"""A thought is ended after so many tokens, in every way of decoding alike; forced tokens are not learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from rlprm.data.confidence import action_probabilities
from rlprm.data.conversation import Conversation
from rlprm.data.message_counts import thought_shares
from rlprm.data.rendering import ChatRenderer
from rlprm.data.store import from_row, to_row
from rlprm.errors import ConfigError
from rlprm.functional.tokens import token_layout
from rlprm.models.heads import LM
from rlprm.models.heads.value_positions import chain_positions
from rlprm.policies.base import Completion
from rlprm.policies.decoding import choice
from rlprm.policies.decoding.thoughts import ThoughtEnding, ThoughtLimit
from rlprm.policies.decoding.whole import teacher_forced
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.monte_carlo import replay
from rlprm.rollouts.waves import rollout
from rlprm.stages.sft import trajectories_to_dataset
from rlprm.types import EpisodeSetting, Message, Split, Trajectory
from tests.architectures.tiny import tiny_model
from tests.data import hub_templates as hub
from tests.toys import corridor
from tests.toys.trajectories import trajectory

CHAT = EpisodeSetting(round_limit=2)
OPENED, FREE = "qwen3_6", "qwen3"  # the generation prompt opens a thought, or leaves the model to open one


@cache
def renderer(name: str) -> ChatRenderer:
    return ChatRenderer(hub.tokenizer_of(name))


@cache
def model(name: str) -> PreTrainedModel:
    return tiny_model("llama", len(renderer(name).tokenizer))


def policy(name: str = OPENED, **changes: object) -> HFPolicy:
    settings: dict[str, object] = {"revision": "r", "max_new_tokens": 14, "max_thinking_tokens": 5}
    return HFPolicy(model(name), renderer(name), **{**settings, **changes})  # type: ignore[arg-type]


def episodes(acting: HFPolicy) -> list[Trajectory]:
    return rollout([(task, i) for task in corridor.tasks(Split.TRAIN, 0, 2) for i in range(2)], acting, CHAT)


def limit(tokens: int, *, opened: bool) -> ThoughtLimit:
    """Words 0 to 3 of 10, 4 is blank, 7 opens and 8 closes a thought; 9 8 is the end that is forced."""
    blank_V = torch.tensor([False] * 4 + [True] + [False] * 6)
    return ThoughtLimit(tokens, torch.tensor([9, 8]), 8, None if opened else 7, blank_V)


def written(drawn: Sequence[int], tokens: int, *, opened: bool) -> tuple[list[int], list[int]]:
    ending = ThoughtEnding(limit(tokens, opened=opened), 1, torch.device("cpu"))
    found = [ending.next(torch.tensor([token])) for token in drawn]
    return [int(ids) for ids, _ in found], [i for i, (_, forced) in enumerate(found) if forced]


@pytest.mark.parametrize(
    ("drawn", "opened", "expected", "forced"),
    [
        ([1, 2, 3, 1, 2], True, [1, 2, 9, 8, 2], [2, 3]),
        ([1, 8, 3, 1, 2], True, [1, 8, 3, 1, 2], []),  # closed in time
        ([1, 2, 8, 1, 2], True, [1, 2, 9, 8, 2], [2, 3]),  # at the limit the end is written in full
        ([1, 2, 3, 1, 7, 1, 2, 3], True, [1, 2, 9, 8, 7, 1, 2, 3], [2, 3]),  # no second thought
        ([7, 1, 2, 3, 1, 2], False, [7, 1, 2, 9, 8, 2], [3, 4]),
        ([4, 4, 7, 1, 2, 3, 1], False, [4, 4, 7, 1, 2, 9, 8], [5, 6]),  # white space before the marker
        ([1, 7, 1, 2, 3, 1], False, [1, 7, 1, 2, 3, 1], []),  # a marker within a message opens no thought
        ([1, 2, 3, 1, 2], False, [1, 2, 3, 1, 2], []),
    ],
)
def test_by_hand(drawn: list[int], opened: bool, expected: list[int], forced: list[int]) -> None:
    assert written(drawn, 2, opened=opened) == (expected, forced)


@given(
    rows=st.lists(st.lists(st.integers(0, 9), min_size=12, max_size=12), min_size=1, max_size=4),
    tokens=st.integers(1, 5),
    opened=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_a_row_does_not_depend_on_the_others(rows: list[list[int]], tokens: int, opened: bool) -> None:
    ending = ThoughtEnding(limit(tokens, opened=opened), len(rows), torch.device("cpu"))
    together = torch.stack([ending.next(column)[0] for column in torch.tensor(rows).T], 1).tolist()
    assert together == [written(row, tokens, opened=opened)[0] for row in rows]
    for row in together:  # no thought is longer than allowed
        first = 0 if opened else next((i for i, token in enumerate(row) if token != 4), 0)
        thought = row[first + (not opened) :] if opened or row[first] == 7 else []
        assert len(thought) <= tokens or {8, 9} & set(thought[: tokens + 1])


@pytest.mark.parametrize(("name", "temperature"), [(OPENED, 1.0), (FREE, 0.0)])
def test_every_way_of_decoding_ends_the_same_thoughts(name: str, temperature: float) -> None:
    found = {}
    for way in choice.WAYS:
        acting = policy(name, temperature=temperature)
        acting._decoder = choice.way_by_name(way, acting.renderer.closing_id)
        if name == FREE:
            opening_with_what_it_says(acting)
        found[way] = episodes(acting)
    kept = found["kept"]
    for way in found:
        assert [t.token_ids for t in found[way]] == [t.token_ids for t in kept], way
        assert [t.action_mask for t in found[way]] == [t.action_mask for t in kept], way
        for a, b in zip(found[way], kept, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    assert any(t.forced_end(step) for t in kept for step in t.steps)


def opening_with_what_it_says(acting: HFPolicy) -> None:
    """Take the first token that the model says for the marker of thoughts, which it never says."""
    said = episodes(policy(FREE, temperature=acting.temperature, max_thinking_tokens=None))[0]
    assert acting._thoughts is not None
    acting._thoughts = replace(acting._thoughts, open_id=said.token_ids[said.steps[0].start])


def test_forced_tokens_have_no_log_probability_and_the_rest_is_what_the_model_gives() -> None:
    acting = policy()
    thoughts = acting.renderer.thoughts
    assert not isinstance(thoughts, str)
    seen = 0
    for t in episodes(acting):
        for step in t.steps:
            ids = t.token_ids[step.start : t.message_end(step)]
            assert len(ids) <= acting.max_new_tokens
            (logprobs,) = teacher_forced(acting.model, [t.token_ids[: step.start]], [ids], temperature=1.0)
            forced = t.forced_end(step)
            for i, logprob in enumerate(logprobs, step.start):
                assert t.logprobs[i] == (0 if i in forced else pytest.approx(logprob, abs=1e-4))
                assert t.action_mask[i] == (i not in forced)
            if forced:
                seen += 1
                assert forced.start == step.start + 5
                assert t.token_ids[forced.start : forced.stop] == thoughts.end_ids
    assert seen > 3


@pytest.mark.trap("forced tokens trained")
def test_trap_nothing_is_learned_of_a_forced_end() -> None:
    t = next(t for t in episodes(policy()) if t.forced_end(t.steps[0]))
    step, forced = t.steps[0], t.forced_end(t.steps[0])
    labels = trajectories_to_dataset([t])[0]["labels"]
    assert all(labels[i] == -100 for i in forced)
    assert labels[forced.stop] == t.token_ids[forced.stop]  # the action after the thought is learned
    layout = token_layout(
        torch.tensor([t.action_mask]),
        torch.tensor([[s.start for s in t.steps]]),
        torch.tensor([[s.end for s in t.steps]]),
        torch.tensor([len(t.steps)]),
    )
    assert not layout.sampled[0, list(forced)].any()
    read = chain_positions(t, head=LM)[1]
    assert range(read.skip_start, read.skip_stop) == forced
    logprob = sum(t.logprobs[i] for i in range(step.start, step.end + 1) if i not in forced)
    assert action_probabilities(t, "action")[0] == pytest.approx(torch.tensor(logprob).exp().item())


def test_an_episode_with_forced_tokens_is_stored_and_replayed() -> None:
    acting = policy()
    t = next(t for t in episodes(acting) if any(t.forced_end(step) for step in t.steps))
    assert from_row(to_row(t)) == t
    again = replay(t, CHAT, acting)[-1].trajectory()
    assert (again.token_ids, again.action_mask, again.logprobs) == (t.token_ids, t.action_mask, t.logprobs)


def test_the_forced_end_ends_the_thought_and_the_action_follows() -> None:
    acting = policy()
    thoughts = acting.renderer.thoughts
    assert not isinstance(thoughts, str)
    ids = [*acting.renderer.tokenizer("a b", add_special_tokens=False)["input_ids"], *thoughts.end_ids]
    ids += acting.renderer.tokenizer("right", add_special_tokens=False)["input_ids"]
    assert acting.renderer.without_thought(acting.renderer.action_text(ids)) == "right"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen2_5", {}, "max_thinking_tokens: got 5, .*: none for this model, because the chat template"),
        ("gptoss", {}, "the chat template does not think"),
        ("qwen3_5_nothink", {}, "with these settings, ends the thought"),
        (OPENED, {"max_new_tokens": 8}, "max_thinking_tokens: got 5, allowed: up to 3, .* max_new_tokens 8"),
        (FREE, {"max_new_tokens": 9}, "allowed: up to 3"),
    ],
)
def test_a_limit_without_effect_or_without_room_is_refused(
    name: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        policy(name, **changes)
    assert "\n" not in str(raised.value)


def test_thoughts_without_a_token_of_their_own_are_refused() -> None:
    made = hub.byte_level()
    made.chat_template = hub.TEMPLATES["qwen3_6"]
    with pytest.raises(
        ConfigError, match=r"</think>, which closes a thought, is no token of this vocabulary"
    ):
        HFPolicy(tiny_model("llama", len(made)), ChatRenderer(made), revision="r", max_thinking_tokens=5)


def test_thoughts_are_counted_by_hand() -> None:
    def thought_tokens(ids: Sequence[int]) -> range | None:
        """Tokens 1 to 9 open, up to a token above 90, which closes."""
        if ids[0] > 9:
            return None
        return range(1, next((i for i, token in enumerate(ids) if token > 90), len(ids)))

    made = trajectory("..aaattac..aaaac..ac..aaaf", stop=None)
    ids = [0, 0, 1, 20, 30, 50, 91, 40, 99, 0, 0, 1, 20, 92, 40, 99, 0, 0, 50, 99, 0, 0, 1, 20, 30, 99]
    made = replace(made, token_ids=tuple(ids))
    assert thought_shares([made], thought_tokens) == {
        "thought_rate": 3 / 4,
        "cut_thought_rate": 1 / 3,
        "open_thought_rate": 1 / 3,  # the last, cut at max_new_tokens
        "thought_tokens": (2 + 1 + 2) / 3,  # without the forced line break
    }
    assert set(thought_shares([], thought_tokens).values()) == {0.0}


def test_the_thought_of_a_message_is_found_in_its_tokens() -> None:
    def place(name: str, text: str) -> str | None:
        made = renderer(name)
        ids = made.tokenizer(text, add_special_tokens=False)["input_ids"]
        found = made.thought_tokens(ids)
        return None if found is None else made.tokenizer.decode(ids[found.start : found.stop])

    assert place(FREE, "\n<think>ab</think>go") == "ab"
    assert place(FREE, "<think>ab") == "ab"
    assert place(FREE, "go <think>ab</think>") is None
    assert place(OPENED, "ab</think>go") == "ab"
    assert place("qwen2_5", "<think>ab</think>go") is None


def test_a_mask_of_a_completion_reaches_the_conversation() -> None:
    opening: list[Message] = [{"role": "user", "content": "x"}]
    conversation = Conversation(renderer(OPENED), opening)
    start = len(conversation)
    done = Completion((5, 6, 7), (-1.0, 0.0, -2.0), mask=(1, 0, 1))
    conversation.act(done.ids, done.logprobs, done.mask)
    assert conversation.action_mask[start:] == [1, 0, 1, 0]
    assert (done.sampled, Completion((5, 6), (-1.0, -1.0)).sampled) == (2, 2)
