"""The embedded tokenizer: lossless for any text, with fixed phrases as single tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlprm.data.rendering import ChatRenderer
from rlprm.models.loading import load_tokenizer
from rlprm.models.tiny import tiny_model
from rlprm.models.tokenizer import train_tokenizer
from tests.data.strategies import nfc, texts

CORPUS = ["There is a red ball.", "go to the red ball", "go to the blue key"]
PHRASES = ["There is a ", "go to the ", "There is a wall", ". ", " "]
TOKENIZER = train_tokenizer(CORPUS, phrases=PHRASES, vocab_size=300)


def pieces(text: str) -> list[str]:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return [TOKENIZER.decode([i]) for i in ids]


@settings(max_examples=25, deadline=None)
@given(st.lists(texts(2), max_size=4), texts())
@example(["café"], "a café au lait")
@example(["£5 "], "it costs £5 now")
@example(["Ġ"], "Ġ")
def test_any_text_survives_whatever_the_phrases(phrases: list[str], text: str) -> None:
    tokenizer = train_tokenizer(CORPUS, phrases=phrases, vocab_size=300)
    said = text + "".join(phrases) + text
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert nfc(tokenizer.decode(ids, skip_special_tokens=False)) == nfc(said)


def test_a_phrase_is_one_token_and_leaves_its_space_to_the_next_word() -> None:
    assert pieces("There is a red ball.")[0] == "There is a"
    # So what follows reads the same after either phrase.
    after_one, after_other = pieces("There is a red ball"), pieces("go to the red ball")
    assert after_one[0] == "There is a"
    assert after_other[0] == "go to the"
    assert after_one[1:] == after_other[1:]
    assert after_one[1].startswith(" ")


def test_of_two_phrases_that_fit_the_longer_is_taken() -> None:
    assert pieces("There is a wall") == ["There is a wall"]


def test_the_envelope_of_a_message_costs_three_tokens() -> None:
    chat = TOKENIZER.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    assert pieces(chat) == ["<|im_start|>", "user\n", "<|im_end|>", "\n"]


def test_special_tokens_have_their_roles() -> None:
    assert TOKENIZER.eos_token == "<|im_end|>"
    assert TOKENIZER.pad_token == "<|endoftext|>"
    assert len({TOKENIZER.eos_token_id, TOKENIZER.pad_token_id}) == 2
    assert max(TOKENIZER.get_vocab().values()) == len(TOKENIZER) - 1


def test_the_template_marks_what_the_assistant_wrote() -> None:
    chat = [
        {"role": "user", "content": "There is a ball"},
        {"role": "assistant", "content": "go"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "left"},
    ]
    made = TOKENIZER.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(made["input_ids"], made["assistant_masks"], strict=True) if m]
    assert TOKENIZER.decode(marked) == "go<|im_end|>left<|im_end|>"


def test_training_is_repeatable_and_saving_keeps_everything(tmp_path: Path) -> None:
    again = train_tokenizer(CORPUS, phrases=PHRASES[::-1], vocab_size=300)
    assert again.get_vocab() == TOKENIZER.get_vocab()
    again.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert loaded.chat_template == TOKENIZER.chat_template
    text = "There is a red ball.\n<|im_end|>  go to the 🤖 ."
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text


@pytest.mark.trap("tokenizer class")
def test_trap_a_tokenizer_beside_a_qwen2_model_splits_text_as_it_did_in_training(tmp_path: Path) -> None:
    # AutoTokenizer picks its class by the model beside it, and that class brings its own way of splitting.
    tiny_model(TOKENIZER, size="xs").save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    text = "There is a red ball 1 12 steps away, it's 3.50!\n\n\t go"
    assert loaded.tokenize(text) == TOKENIZER.tokenize(text)
    assert ChatRenderer(loaded).template_hash == ChatRenderer(TOKENIZER).template_hash


def test_a_digit_takes_the_space_before_it_along() -> None:
    assert pieces("There is a 1 42") == ["There is a", " 1", " 4", "2"]


@pytest.mark.parametrize("size", [262, 280, 300])
def test_the_vocabulary_is_no_larger_than_asked_beside_phrases_envelopes_and_digits(size: int) -> None:
    bare = train_tokenizer(CORPUS, vocab_size=size)
    assert 259 <= len(bare) <= size + 3 + 10


def test_a_word_behind_a_phrase_is_one_token_as_it_is_behind_a_space() -> None:
    """Merges are learned on what stands between phrases: "[green" would be a word of its own otherwise."""
    corpus = ["i want a green one [SEP] green [SEP] large", "click[green]", "click[large]"] * 20
    tokenizer = train_tokenizer(corpus, phrases=[" [SEP] ", "click["], vocab_size=600)
    assert tokenizer.tokenize("click[green]") == ["click[", "green", "]"]
    assert tokenizer.tokenize("a green one [SEP] green [SEP] large")[1:] == [
        "Ġgreen", "Ġone", " [SEP] ", "green", " [SEP] ", "large",
    ]  # fmt: skip
