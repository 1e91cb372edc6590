"""The hash of a tokenizer and its chat template: artifacts with different hashes do not mix."""

from __future__ import annotations

import hashlib
import json

from transformers import PreTrainedTokenizerBase

from rlprm.data.rendering.template import Template

__all__ = ["hash_of"]

_PROBE_TEXT = "It's 3 steps to door 12,  isn't it? [\"go to red ball 1\"]\n\n\tCafé  $4.50: 7 x 8 = 56 \n"


def hash_of(tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    """Return a hash of vocabulary, template, the template's variables and its date.

    Variables and date count only if there are some, so that the hash of a tokenizer without them is that of
    earlier versions.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    # The same vocabulary can be used in several ways: how a text is split belongs to the identity too.
    split = tokenizer(_PROBE_TEXT, add_special_tokens=False)["input_ids"]
    identity = [tokenizer.chat_template, vocabulary, split]
    if template.variables or template.date:
        identity.append({"variables": template.variables, "date": template.date})
    content = json.dumps(identity, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
