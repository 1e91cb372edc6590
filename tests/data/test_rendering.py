"""Pieces of a conversation, put together, are the tokenizer's own template, and nothing gets lost."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from rlprm.data.rendering import ChatRenderer
from rlprm.data.rendering.settings import ChatSettings, apply_settings
from rlprm.errors import ChatTemplateError
from rlprm.models.loading import load_tokenizer
from rlprm.models.tokenizer import CHAT_TEMPLATE, train_tokenizer
from rlprm.types import Message
from tests.data import templates
from tests.data.strategies import nfc, texts

RENDERERS = {
    "embedded": ChatRenderer(templates.tokenizer(CHAT_TEMPLATE)),
    "qwen2.5": ChatRenderer(templates.tokenizer(templates.QWEN25)),
    "llama3": ChatRenderer(
        templates.tokenizer(templates.LLAMA3, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    ),
}
each_renderer = pytest.mark.parametrize("name", RENDERERS)


def decode(renderer: ChatRenderer, ids: list[int]) -> str:
    return str(renderer.tokenizer.decode(ids, skip_special_tokens=False))


def whole(renderer: ChatRenderer, messages: list[Message], *, generate: bool) -> str:
    dicts = [dict(message) for message in messages]
    return str(renderer.tokenizer.apply_chat_template(dicts, tokenize=False, add_generation_prompt=generate))


@each_renderer
@settings(max_examples=60, deadline=None)
@given(
    system=st.none() | texts(),
    question=texts(),
    turns=st.lists(st.tuples(texts(), texts()), max_size=3),
    last=texts(),
)
@example(system="\n\n", question="<|im_end|>", turns=[], last="")
def test_the_pieces_together_are_the_template_rendered_whole(
    name: str, system: str | None, question: str, turns: list[tuple[str, str]], last: str
) -> None:
    renderer = RENDERERS[name]
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": question})
    ids = renderer.prompt_ids(messages)
    for action, observation in turns:
        ids += renderer.action_ids(action) + renderer.observation_ids(observation)
        messages.append({"role": "assistant", "content": action})
        messages.append({"role": "user", "content": observation})
    assert nfc(decode(renderer, ids)) == nfc(whole(renderer, messages, generate=True))
    ids += renderer.action_ids(last)
    messages.append({"role": "assistant", "content": last})
    # A finished conversation stops at the closing token; a template may add a separator after it.
    assert nfc(decode(renderer, ids)) == nfc(whole(renderer, messages, generate=False).rstrip("\n"))


def test_a_template_that_puts_in_its_own_system_prompt_keeps_it() -> None:
    renderer = RENDERERS["qwen2.5"]
    prompt = decode(renderer, renderer.prompt_ids([{"role": "user", "content": "hi"}]))
    assert prompt.startswith("<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.")
    assert prompt.count("<|im_start|>system") == 1
    assert "You are Qwen" not in decode(renderer, renderer.observation_ids("hi"))


@each_renderer
@settings(max_examples=150, deadline=None)
@given(text=texts())
def test_any_text_survives_the_round_trip_through_ids(name: str, text: str) -> None:
    renderer = RENDERERS[name]
    ids = renderer.action_ids(text)
    assert ids[-1] == renderer.closing_id
    assert nfc(renderer.action_text(ids)) == nfc(text)
    assert nfc(text) in nfc(decode(renderer, renderer.observation_ids(text)))


@pytest.mark.parametrize("name", ["embedded", "qwen2.5"])
@pytest.mark.trap("turn separator")
def test_trap_the_turn_separator_is_kept_at_the_boundary_of_action_and_observation(name: str) -> None:
    renderer = RENDERERS[name]
    ids = renderer.observation_ids("There is a wall.")
    (separator,) = renderer.tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert ids[0] == separator
    assert decode(renderer, [renderer.closing_id, *ids]) == (
        "<|im_end|>\n<|im_start|>user\nThere is a wall.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_closing_token_is_found_in_the_template() -> None:
    for name, token in {"embedded": "<|im_end|>", "qwen2.5": "<|im_end|>", "llama3": "<|eot_id|>"}.items():
        renderer = RENDERERS[name]
        assert renderer.tokenizer.convert_ids_to_tokens(renderer.closing_id) == token


def test_an_action_without_its_closing_token_is_read_whole() -> None:
    renderer = RENDERERS["embedded"]
    ids = renderer.action_ids("go right")
    assert renderer.action_text(ids[:-1]) == renderer.action_text(ids) == "go right"
    assert renderer.action_text([]) == renderer.action_text([renderer.closing_id]) == ""
    # Only the last one is the closing token; a control token in the middle is part of what was said.
    assert renderer.action_text([*ids, renderer.closing_id]) == "go right<|im_end|>"


@pytest.mark.trap("unusual tokens")
def test_trap_spelling_in_other_tokens_is_read_like_the_usual_one() -> None:
    renderer = RENDERERS["embedded"]
    usual = renderer.action_ids("right")[:-1]
    letters = renderer.tokenizer.convert_tokens_to_ids(list("right"))
    assert letters != usual
    assert renderer.action_text(letters) == renderer.action_text(usual) == "right"


def test_a_template_that_drops_old_thoughts_is_cut_like_one_that_does_not() -> None:
    renderer = ChatRenderer(templates.tokenizer(templates.QWEN3))
    assert renderer.rewrites
    plain = RENDERERS["qwen2.5"]
    assert renderer.observation_ids("a wall") == plain.observation_ids("a wall")
    assert renderer.action_ids("<think>left</think>go") == plain.action_ids("<think>left</think>go")


def test_a_template_that_drops_old_thoughts_is_refused_if_history_is_strict() -> None:
    tokenizer = apply_settings(templates.tokenizer(templates.QWEN3), ChatSettings(history="strict"))
    with pytest.raises(ChatTemplateError, match=r"rewrites earlier turns.*expected '<think>\\nan earlier"):
        ChatRenderer(tokenizer)


@each_renderer
def test_a_template_that_only_appends_is_accepted_if_history_is_strict(name: str) -> None:
    tokenizer = deepcopy(RENDERERS[name].tokenizer)
    strict = ChatRenderer(apply_settings(tokenizer, ChatSettings(history="strict")))
    assert strict.history == "strict"
    assert strict.template_hash == RENDERERS[name].template_hash  # the ids are the same


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (None, "has no chat template"),
        (templates.PLAIN, "does not close an assistant message with a special token.*user: "),
        ("{%- for m in messages %}{{- m.role }}<|im_end|>{%- endfor %}", "drops or repeats"),
        (templates.QWEN25.replace("+ message.content", "+ 2 * message.content"), "drops or repeats"),
        (
            templates.QWEN25.replace("+ message.role +", "+ message.role + (loop.index | string) +"),
            "does not write the same around every observation: turn 2, after a plain reply",
        ),
        (
            templates.QWEN25.replace("+ message.content", "+ message.content[:20]"),
            "does not write the same around every observation: turn 1, .* a long observation",
        ),
    ],
)
def test_a_template_that_cannot_be_cut_into_pieces_is_refused(template: str | None, complaint: str) -> None:
    with pytest.raises(ChatTemplateError, match=complaint):
        ChatRenderer(templates.tokenizer(template))


def test_the_hash_belongs_to_template_and_vocabulary(tmp_path: Path) -> None:
    hashes = {name: renderer.template_hash for name, renderer in RENDERERS.items()}
    assert len(set(hashes.values())) == 3
    again = templates.tokenizer(templates.QWEN25)
    assert ChatRenderer(again).template_hash == hashes["qwen2.5"]
    again.save_pretrained(tmp_path)
    assert ChatRenderer(load_tokenizer(str(tmp_path))).template_hash == hashes["qwen2.5"]
    again.add_tokens(["one more"])
    assert ChatRenderer(again).template_hash != hashes["qwen2.5"]
    swapped = [train_tokenizer(corpus, vocab_size=263) for corpus in (["abab"], ["baba"])]
    assert len({ChatRenderer(tokenizer).template_hash for tokenizer in swapped}) == 2
    assert len({len(tokenizer) for tokenizer in swapped}) == 1


def test_a_tokenizer_without_padding_is_padded_with_the_closing_token() -> None:
    tokenizer = templates.tokenizer(CHAT_TEMPLATE)
    tokenizer.pad_token = None
    renderer = ChatRenderer(tokenizer)
    assert renderer.pad_id == renderer.closing_id


@pytest.mark.trap("tokenizer class")
def test_trap_the_same_vocabulary_with_another_way_of_splitting_is_another_tokenizer() -> None:
    words, letters = (train_tokenizer(["three steps to the door"] * 3, vocab_size=300) for _ in range(2))
    letters.backend_tokenizer.pre_tokenizer = Sequence(
        [Split(Regex("."), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    assert letters.get_vocab() == words.get_vocab()
    assert ChatRenderer(letters).template_hash != ChatRenderer(words).template_hash
