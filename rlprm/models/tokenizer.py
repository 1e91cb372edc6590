"""The embedded tokenizer: byte-level BPE with ChatML, trained on an environment's own text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# Qwen2.5's layout without its default system prompt; `generation` marks what the assistant wrote.
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


def train_tokenizer(
    corpus: Iterable[str], *, phrases: Sequence[str] = (), vocab_size: int = 1024
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on a corpus.

    Args:
        corpus: texts of the environment (observations and actions).
        phrases: fixed phrases that become one token each, so that a small model
            spends its context on what varies.
        vocab_size: size of the BPE part; the corpus may give fewer merges.

    Returns:
        A tokenizer whose chat template is ChatML and which decodes what it
        encoded to the same text, any bytes included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    # A phrase that ends in a word gives its trailing space to the next one: " red" is then the same token
    # after "There is a" as after "go to the", which is what a model copies from one to the other.
    trimmed = {p.rstrip(" ") if p.rstrip(" ")[-1:].isalnum() else p for p in phrases} - {""}
    # The decoder takes a phrase such as "café" for byte-level symbols; it is left to the BPE part.
    lossless = {p for p in trimmed if tokenizer.decoder.decode([p]) == p}
    longest_first = sorted({*lossless, *_ENVELOPES}, key=lambda phrase: (-len(phrase), phrase))
    tokenizer.add_tokens([AddedToken(phrase, normalized=False, special=False) for phrase in longest_first])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
