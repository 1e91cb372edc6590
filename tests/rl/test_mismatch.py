"""A sampler that acts with another policy than the one that is trained ends the run."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from rlprm.errors import TrainingError
from rlprm.models.loading import load_causal_lm
from rlprm.policies.hf import HFPolicy
from rlprm.rl.monitor.mismatch import refuse_mismatch
from rlprm.rl.samplers.local import LocalSampler
from tests.rl.conftest import BASELINE, Run, column


def sampler_with(monkeypatch: pytest.MonkeyPatch, weights: Any) -> None:
    """Let the sampler act with these weights whatever it is synced with; None: those it has first."""
    kept = [weights] if weights is not None else []
    policy = LocalSampler._policy

    def other(self: LocalSampler, own: Any, revision: str) -> HFPolicy:
        if not kept:
            kept.append(deepcopy(own))
        return policy(self, kept[0], revision)

    monkeypatch.setattr(LocalSampler, "_policy", other)


@pytest.mark.trap("sampler mismatch")
def test_trap_a_sampler_with_other_weights_ends_the_run_before_anything_is_learned(
    run: Run, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler_with(monkeypatch, load_causal_lm(str(tiny_folder), dtype="float32"))
    cause = (
        r"iteration 0: .* allowed: 0\.001 \(max_sampler_mismatch\); likely causes: the sampler has other w"
    )
    with pytest.raises(TrainingError, match=cause):
        run(**BASELINE)
    assert not (tmp_path / "rl" / "model.safetensors").exists()


@pytest.mark.trap("sampler mismatch")
def test_trap_a_sampler_that_does_not_follow_the_updates_ends_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler_with(monkeypatch, None)
    with pytest.raises(TrainingError, match="iteration 1: the sampler's log-probabilities differ"):
        run(**BASELINE, learning_rate=1e-2)
    run("allowed", **BASELINE, learning_rate=1e-2, max_sampler_mismatch=50.0)
    found = column(tmp_path / "allowed", "ppo/sampler_mismatch")
    assert found[0] < 1e-4
    assert min(found[1:]) > 0.01


@pytest.mark.parametrize(
    ("mismatch", "limit", "half", "temperature", "is_refused"),
    [
        (0.0009, None, False, 1.0, False),
        (0.0011, None, False, 1.0, True),
        (0.0019, None, False, 0.5, False),  # the same rounding of logits
        (0.0011, None, False, 2.0, True),
        (0.049, None, True, 1.0, False),
        (0.63, None, True, 1.0, True),
        (0.01, 0.02, False, 1.0, False),
        (0.03, 0.02, True, 0.1, True),
        (math.nan, 1e9, True, 1.0, True),
    ],
)
def test_the_limit_goes_with_precision_and_temperature_unless_it_is_set(
    mismatch: float, limit: float | None, half: bool, temperature: float, is_refused: bool
) -> None:
    def refuse() -> None:
        refuse_mismatch(mismatch, limit=limit, half=half, temperature=temperature, iteration=3)

    if not is_refused:
        refuse()
        return
    with pytest.raises(TrainingError, match="iteration 3"):
        refuse()
