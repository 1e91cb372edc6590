"""A step that is not finite is left out and counted; several in a row end the update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlprm.rl.update as module
from rlprm.errors import TrainingError
from rlprm.rl.losses import count_denominators, total_loss
from tests.rl import toy

BATCH = toy.batch()
CREDIT = toy.random_credit(BATCH)


def spoil(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Let the losses of some steps, from 0, be no numbers."""
    begun: list[int] = []

    def counted(*args: Any) -> Any:
        begun.append(len(begun))
        return count_denominators(*args)

    def spoiled(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        loss, report = total_loss(*args, **kwargs)
        factor = torch.nan if begun[-1] in steps else 1.0
        return loss * factor, report * factor

    monkeypatch.setattr(module, "count_denominators", counted)  # once a step
    monkeypatch.setattr(module, "total_loss", spoiled)


def test_a_step_is_left_out_and_the_others_are_taken(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learner = toy.learner(tiny_folder, minibatches=4)
    spoil(monkeypatch, 1, 2)
    before = toy.weights(learner)
    stats = learner.update(BATCH, CREDIT, learner.read_old(BATCH))
    assert (stats.steps, stats.skipped_steps) == (2, 2)
    after = toy.weights(learner)
    assert bool(after.isfinite().all())
    assert not torch.equal(before, after)
    assert "2 of 4 steps were left out: not finite" in caplog.text


def test_a_step_that_is_left_out_leaves_nothing_behind(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled, plain = (toy.learner(tiny_folder, minibatches=1, ppo_epochs=2) for _ in range(2))
    old = plain.read_old(BATCH)
    spoil(monkeypatch, 0)
    spoiled.update(BATCH, CREDIT, old)
    monkeypatch.undo()
    plain.config.ppo_epochs = 1
    plain.update(BATCH, CREDIT, old)
    # The order of the rows differs between epochs, and so does the rounding of their sums.
    assert torch.allclose(toy.weights(spoiled), toy.weights(plain), atol=1e-5)


@pytest.mark.parametrize(("wrong", "steps"), [((0, 1, 2), 4), ((1, 2, 3), 4), ((0, 1), 2)])
def test_several_in_a_row_end_the_update(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: tuple[int, ...], steps: int
) -> None:
    learner = toy.learner(tiny_folder, minibatches=steps)
    spoil(monkeypatch, *wrong)
    with pytest.raises(TrainingError, match=r"is nan.*lower learning_rate"):
        learner.update(BATCH, CREDIT, learner.read_old(BATCH))
