"""What is unset depends on the size of the model, is recorded, and is refused where nothing can be right."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprm.errors import ConfigError
from rlprm.models.loading import load_causal_lm
from rlprm.rl.config import RLConfig
from rlprm.rl.monitor.rounding import measure_rounding
from rlprm.runtime.record import read_record
from tests.prm.toy import separable
from tests.rl import toy
from tests.rl.conftest import BASELINE, Run

NAMES = ("learning_rate", "max_new_tokens", "importance_cap")


def config(**settings: Any) -> RLConfig:
    return RLConfig(**{"model": "-", "advantage": "turn_gae", **settings})


@pytest.mark.parametrize(
    ("parameters", "settings", "expected"),
    [
        (400_000, {}, (1e-4, 32, None)),
        (9_999_999, {}, (1e-4, 32, None)),
        (10_000_000, {}, (1e-5, 32, None)),
        (400_000, {"lora_r": 4}, (1e-4, 32, 2.0)),
        (135_000_000, {"max_new_tokens": 64}, (1e-6, 64, 2.0)),
        (135_000_000, {"max_new_tokens": 64, "lora_r": 16}, (1e-5, 64, 2.0)),
        (135_000_000, {"max_new_tokens": 64, "old_logprobs": "sampler"}, (1e-6, 64, None)),
        (135_000_000, {"max_new_tokens": 8, "learning_rate": 3e-4, "importance_cap": 0}, (3e-4, 8, 0)),
    ],
)
def test_what_is_unset_goes_by_size_and_what_is_set_stays(
    parameters: int, settings: dict[str, Any], expected: tuple[object, ...]
) -> None:
    settled = config(**settings).settled(parameters=parameters)
    assert tuple(getattr(settled, name) for name in NAMES) == expected
    assert settled.settled(parameters=parameters) == settled


def test_a_large_model_has_no_default_length_of_a_message() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens: got nothing, and a policy of 135 million weights"):
        config().settled(parameters=135_000_000)


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0}, {"max_sampler_mismatch": 0}, {"importance_cap": -1}, {"max_new_tokens": -1}],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        config(**wrong)


def test_a_run_says_and_records_what_was_chosen(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(**BASELINE, iterations=1, learning_rate=None)
    (line,) = [r.message for r in caplog.records if r.message.startswith("chosen for a policy of")]
    assert "learning_rate 0.0001, importance_cap 0" in line
    assert read_record(tmp_path / "rl")["config"]["learning_rate"] == 1e-4


# --- what a bfloat16 load loses ---


def test_an_update_below_rounding_is_warned_of(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The weights move by a millionth: bfloat16, whose steps are 1/256 of a weight, cannot hold that."""
    model = load_causal_lm(str(tiny_folder), dtype="float32", device=torch.device("cpu"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-6)
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO):
        found = measure_rounding(str(tmp_path), str(tiny_folder), separable(4))
    assert found is not None
    assert found.update < 0.1 * found.bfloat16
    assert "load it with dtype float32, or keep the adapter apart" in caplog.text
    assert found.tokens == sum(sum(t.action_mask) for t in separable(4)[:8])


def test_an_update_above_rounding_is_reported_and_nothing_is_warned_of(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner = toy.learner(tiny_folder, learning_rate=0.1)
    batch = toy.batch(8)
    learner.update(batch, toy.random_credit(batch), learner.read_old(batch))
    learner.engine.model.policy.save_pretrained(tmp_path)
    found = measure_rounding(str(tmp_path), str(tiny_folder), separable(4))
    assert found is not None
    assert found.update > 4 * found.bfloat16 > 0
    assert "load it with" not in caplog.text


def test_the_loss_is_in_the_summary_and_the_record(run: Run, tmp_path: Path) -> None:
    summary = run(**BASELINE, iterations=2)
    assert summary["bf16_load"]["update"] > 0
    assert read_record(tmp_path / "rl")["results"]["bf16_load"] == summary["bf16_load"]
