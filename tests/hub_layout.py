"""The cache of the Hugging Face hub, as a download would leave it, made on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process look for the hub's models in a folder, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def put(cache: Path, name: str, content: Path, *, kind: str = "models", commit: str = COMMIT) -> Path:
    """Put a copy of a folder into the cache as the main branch of a repository; return the snapshot."""
    repository = cache / "--".join([kind, *name.split("/")])
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(content, repository / "snapshots" / commit))
