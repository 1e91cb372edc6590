"""Launches shared by all tests of this folder, and by all workers of a run."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import AutoModelForTokenClassification

from rlprm.data.rendering import ChatRenderer
from rlprm.models.loading import load_scalar_model
from rlprm.models.tiny import tiny_model
from tests.deepspeed.launches import Launches

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason='deepspeed is not installed: pip install -e ".[deepspeed]"',
)


@pytest.fixture(scope="session")
def launches(tmp_path_factory: pytest.TempPathFactory, renderer: ChatRenderer) -> Launches:
    """Launches that start from the same models."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "deepspeed"
    root.mkdir(exist_ok=True)
    with FileLock(root / "lock"):
        if not (root / "models").exists():
            _make_models(root / "making", renderer)
            (root / "making").rename(root / "models")
    return Launches(root, root / "models")


def _make_models(folder: Path, renderer: ChatRenderer) -> None:
    """A policy, a PRM whose values differ from the start, and a classifier that is neither."""
    tiny_model(renderer.tokenizer, size="xs", context_length=512).save_pretrained(folder / "policy")
    policy = str(folder / "policy")
    prm = load_scalar_model(policy, dtype="float32")
    torch.nn.init.normal_(prm.score.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    prm.save_pretrained(folder / "prm")
    AutoModelForTokenClassification.from_pretrained(policy, num_labels=3).save_pretrained(
        folder / "three_labels"
    )
    for name in ("policy", "prm"):
        renderer.tokenizer.save_pretrained(folder / name)
