"""Plain gradient descent, for tests in which one update must equal another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW divides by the size of a gradient: rounding would be blown up where it is (nearly) zero."""
    monkeypatch.setattr(torch.optim, "AdamW", descent)


def descent(groups: Iterable[dict[str, Any]], **_: Any) -> torch.optim.SGD:
    """The same parameters and step sizes, and nothing else."""
    return torch.optim.SGD(groups)
