"""What identifies a model beside its weights: tokenizer, chat template, configurations."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from rlprm.errors import MODEL_FILES
from rlprm.models.hub.download import commit_of, model_folder

__all__ = ["model_files"]

_PATTERNS = (
    "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab*", "merges.txt", "*.model", "chat_template*", "additional_chat_templates/*", "*.py",
)  # fmt: skip
_LONGEST = 64 << 20
"""Bytes; the largest tokenizers have 40 MB."""


def model_files(**models: str) -> dict[str, Any]:
    """Return what the files of models beside their weights add to the record of a run.

    Two policies with the same weights and other chat templates are two policies. The commit of a hub's model
    stands for all of its files, so these are not listed.

    Args:
        **models: role of each model (``policy``) → folder or hub id.

    Returns:
        ``{"model_files": {role: {file: hash}}}``; nothing without a folder.
    """
    found = {role: _hashes(model_folder(name)) for role, name in models.items() if commit_of(name) is None}
    return {MODEL_FILES: found} if found else {}


def _hashes(folder: Path) -> dict[str, str]:
    files = {file for pattern in _PATTERNS for file in folder.glob(pattern) if file.is_file()}
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        for file in sorted(files)
        if file.stat().st_size <= _LONGEST
    }
