"""The chat templates that TRL ships, copies of the hub's, each with a tokenizer that has its tokens."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

from rlprm.models.tokenizer import train_tokenizer

TRL = version("trl")
TEMPLATES = {
    path.name.removesuffix(".jinja"): path.read_text(encoding="utf-8")
    for path in sorted(files("trl").joinpath("chat_templates").iterdir(), key=lambda path: path.name)
    if path.name.endswith(".jinja")
}
_BARS = r"[|\uff5c]"
_TOKENS = re.compile(
    rf"<{_BARS}[^|\uff5c<>\s'\"]+{_BARS}>"  # <|im_end|>, <｜User｜>
    r"|<\|[a-z_]+>|<[a-z_]+\|>"  # <|turn>, <turn|>
    r"|</?[a-z_]+>"  # <think>, </s>
    r"|\[/?[A-Z_]+\]|\[gMASK\]"  # [INST]
)
_CORPUS = ["a wall, a cell; other words altogether", "go to the red door, then pick up the key"]


def tokens_of(template: str) -> list[str]:
    """Return what looks like a control token in a template's text."""
    return list(dict.fromkeys(_TOKENS.findall(template)))


def byte_level() -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer as the hub has them: without added phrases."""
    trained = json.loads(train_tokenizer(_CORPUS, vocab_size=300).backend_tokenizer.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer with a template and its tokens; markers like <think> are not special."""
    template = TEMPLATES[name]
    made = byte_level()
    special = [token for token in tokens_of(template) if set(token) & set("|\uff5c[")]
    if "bos_token" in template:
        made.add_special_tokens({"bos_token": "<bos>"})
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *special]})
    made.add_tokens([token for token in tokens_of(template) if token not in special])
    made.chat_template = template
    return made
