"""Texts of token ids, where the tokenizer of the policy is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["token_texts"]


def token_texts(file: Path | None, ids: Sequence[int]) -> dict[str, str]:
    """Return the texts of token ids by id; an empty mapping without a tokenizer that can be read.

    Args:
        file: ``tokenizer.json`` of the policy, or None.
        ids: that were sampled.
    """
    if file is None or not ids:
        return {}
    from tokenizers import Tokenizer  # no part of most reports

    try:
        tokenizer = Tokenizer.from_file(str(file))
        return {str(i): tokenizer.decode([i], skip_special_tokens=False) for i in ids}
    except Exception:  # tokenizers raises nothing more special; the page then shows numbers
        return {}
