"""When the trainer reads the policy again after acting, and what changes if it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlprm.errors import TrainingError
from rlprm.rl import trainer as trainer_module
from rlprm.rl.batch import Batch
from rlprm.rl.old_logprobs import rows_to_read
from rlprm.rl.samplers.local import LocalSampler
from tests.rl import toy
from tests.rl.conftest import BASELINE, Run, assert_close, rows
from tests.toys.trajectories import of_steps

BATCH = Batch.from_trajectories([of_steps(sample=number) for number in range(80)])


class _Engine:
    """What the decision depends on."""

    def __init__(self, *, in_half: bool = False, shared: bool = False) -> None:
        self.in_half = in_half
        self.model = type("Model", (), {"value_head": object() if shared else None})()


@pytest.mark.parametrize(
    ("settings", "engine", "is_exact", "read"),
    [
        ({}, {}, True, 10),
        ({}, {}, False, 80),  # servers, merged adapters, half precision of the sampler
        ({}, {"in_half": True}, True, 80),
        ({}, {"shared": True}, True, 80),
        ({"importance_cap": 2.0}, {}, True, 80),
        ({"kl_coef": 0.1}, {}, True, 80),
        ({"old_logprobs": "sampler"}, {"in_half": True}, False, 10),
        ({"old_logprobs": "sampler", "kl_coef": 0.1}, {}, False, 80),
    ],
)
def test_a_sample_is_read_if_the_samplers_numbers_serve_and_all_episodes_otherwise(
    settings: dict[str, Any], engine: dict[str, bool], is_exact: bool, read: int
) -> None:
    found = [
        rows_to_read(
            toy.config(**settings), _Engine(**engine), BATCH, sampler_is_exact=is_exact, iteration=iteration
        )  # type: ignore[arg-type]
        for iteration in (0, 0, 1)
    ]
    if read == 80:
        assert found == [None] * 3
        return
    assert found[0] is not None
    assert len(set(found[0])) == read
    assert found[0] == found[1] != found[2]  # another sample in each iteration


@pytest.mark.parametrize("kind", ["own critic", "no critic"])
@pytest.mark.usefixtures("plain_descent")
def test_both_ways_give_the_same_update(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings = {"iterations": 2, "learning_rate": 0.05, **(BASELINE if kind == "no critic" else {})}
    run("sampled", **settings)
    monkeypatch.setattr(trainer_module, "rows_to_read", lambda *_, **__: None)
    run("all", **settings)
    weights, again = (load_file(tmp_path / name / "model.safetensors") for name in ("sampled", "all"))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, again[name], atol=1e-5, rtol=0)
    for one, other in zip(rows(tmp_path / "sampled"), rows(tmp_path / "all"), strict=True):
        for name, number in one.items():
            if not name.startswith("time/") and name != "ppo/sampler_mismatch":
                assert_close(other[name], number, 1e-4, name)


@pytest.mark.trap("unread sampler")
def test_trap_a_wrong_sampler_is_caught_by_the_episodes_that_are_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler that claims to be exact and is not must not teach: its numbers would be the denominator."""
    policy = LocalSampler._synced_policy

    def shifted(self: LocalSampler) -> Any:
        found = policy(self)
        found.temperature = 1.5  # samples, and reports log-probabilities, at another temperature
        return found

    monkeypatch.setattr(LocalSampler, "_synced_policy", shifted)
    with pytest.raises(TrainingError, match=r"log-probabilities differ from the trainer's"):
        run(**BASELINE)
