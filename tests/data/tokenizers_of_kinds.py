"""Small tokenizers of the kinds that are met on the hub, with ChatML and markers that are not special."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlprm.models.hub.packaged import PACKAGED, missing_packages, weights_in
from tests.data import hub_templates, templates

SPECIAL = ["<|im_start|>", "<|im_end|>"]
MARKERS = ["<think>", "</think>", "<tool_call>", "<|box|>"]
"""Added without the flag, as Qwen3 has them."""
_CORPUS = [
    "There is a wall; go to the red door, then pick up the key. <think> is a word | im_end box tool_call",
    "im_start user assistant system 0123456789 <|x|> $4.50 {a: [b, c]}",
] * 4
KINDS = ("byte-level", "embedded", "unigram", "llama", "llama-legacy", "byt5", "smollm2")


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer; never to be changed."""
    made = _MAKERS[kind]()
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.add_tokens(MARKERS)
    made.chat_template = templates.QWEN25
    return made


def missing(kind: str) -> str:
    """Return why a kind is not available; empty if it is."""
    absent = missing_packages("smollm2-135m") if kind == "smollm2" else []
    return f"not installed: {', '.join(absent)}" if absent else ""


def _unigram() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    # Control strings are in the vocabulary of many Unigram models, where the search for the best split finds
    # them as pieces of text.
    trainer = trainers.UnigramTrainer(
        vocab_size=140, special_tokens=["<unk>", *SPECIAL, *MARKERS], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(_CORPUS, trainer)
    return _wrapped(backend, unk_token="<unk>")


def _llama(scheme: str) -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme == "legacy":
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    alphabet = sorted({c for text in _CORPUS for c in text.replace(" ", "\u2581")})
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    # Tokens of single bytes are no added tokens on the hub.
    content = json.loads(backend.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if not t["content"].startswith("<0x")]
    backend = Tokenizer.from_str(json.dumps(content))
    return _wrapped(backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _wrapped(backend: Tokenizer, **tokens: str) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, pad_token=SPECIAL[1], **tokens
    )


def _smollm2() -> PreTrainedTokenizerBase:
    file = weights_in(PACKAGED["smollm2-135m"].package)
    made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return made


_MAKERS = {
    "byte-level": hub_templates.byte_level,
    "embedded": lambda: templates.tokenizer(None),
    "unigram": _unigram,
    "llama": lambda: _llama("first"),
    "llama-legacy": lambda: _llama("legacy"),
    "byt5": ByT5Tokenizer,
    "smollm2": _smollm2,
}
