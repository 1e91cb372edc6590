"""The embedded tokenizer: byte-level BPE with ChatML, trained on an environment's own text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

# Qwen2.5's layout without its default system prompt; `generation` marks the assistant's tokens.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.role == 'assistant' %}"
    "{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}{{- '\n' }}"
    "{%- else %}{{- message.content + '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_ENVELOPES = ["user\n", "assistant\n", "system\n"]
# Qwen2 splits every digit from the space before it; numbers are too frequent here for two tokens each.
_DIGITS = [f" {digit}" for digit in range(10)]


def train_tokenizer(
    corpus: Iterable[str], *, phrases: Sequence[str] = (), vocab_size: int = 1024
) -> Qwen2Tokenizer:
    """Train a byte-level BPE tokenizer on a corpus.

    It is a ``Qwen2Tokenizer`` from the start, because ``AutoTokenizer`` turns any tokenizer beside a
    Qwen2 model into one. Another way of splitting text would be replaced, without a message, when the
    policy is loaded again.

    Args:
        corpus: texts of the environment (observations and actions).
        phrases: fixed phrases that become one token each, which shortens a small model's context.
        vocab_size: size of the BPE part; the corpus may give fewer merges.

    Returns:
        A tokenizer whose chat template is ChatML and which decodes what it
        encoded to the same text (in Unicode's normal form C, as Qwen2 does).
    """
    qwen = Qwen2Tokenizer().backend_tokenizer
    # A phrase that ends in a word gives its trailing space to the next one: " red" is then the same token
    # after "There is a" as after "go to the", which is what a model copies from one to the other.
    trimmed = {p.rstrip(" ") if p.rstrip(" ")[-1:].isalnum() else p for p in phrases} - {""}
    # The decoder would read a phrase such as "café" as byte-level symbols; the BPE part encodes it instead.
    lossless = {p for p in trimmed if qwen.decoder.decode([p]) == p}
    longest_first = sorted({*lossless, *_ENVELOPES, *_DIGITS}, key=lambda phrase: (-len(phrase), phrase))
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer, bpe.decoder = qwen.normalizer, qwen.pre_tokenizer, qwen.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Trained on the text between phrases: a word after a phrase has no space in front, and is still a word.
    phrase = re.compile("|".join(map(re.escape, longest_first)))
    bpe.train_from_iterator((piece for text in corpus for piece in phrase.split(text) if piece), trainer)
    trained = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, special=False) for phrase in longest_first])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
