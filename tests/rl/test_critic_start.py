"""What a critic of its own starts from, and what it says at first."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprm.errors import MismatchError
from rlprm.models.loading import load_scalar_model
from rlprm.models.manifest import Manifest
from rlprm.rl.actor_critic import ActorCritic
from rlprm.rl.config import RLConfig
from rlprm.rl.loading import load_model
from tests.data import templates
from tests.rl import toy, walker
from tests.rl.conftest import Run, rows

BATCH = toy.batch(4)


def load(settings: dict[str, Any], **changes: Any) -> ActorCritic:
    return load_model(RLConfig(**{**settings, **changes}), on=torch.device("cpu"), bf16=False)


@torch.no_grad()
def first_values(model: ActorCritic) -> torch.Tensor:
    """(B,): before the first action of each episode."""
    first_B = BATCH.starts_BT[:, 0]
    values: torch.Tensor = model(BATCH.token_ids_BL, torch.arange(len(BATCH)), first_B).values
    return values


@torch.no_grad()
def prm_values(prm: Path) -> torch.Tensor:
    """(B,): ``v_0``, which is read at the same place."""
    model = load_scalar_model(str(prm), dtype="float32")
    output = model(input_ids=BATCH.token_ids_BL, use_cache=False).logits.squeeze(-1)
    found: torch.Tensor = output[torch.arange(len(BATCH)), BATCH.starts_BT[:, 0] - 1]
    return found


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"reward": "outcome"}, 1.0),
        ({"reward": "progress"}, 1.0),  # the critic predicts the outcome; the potential is subtracted later
        ({"reward": "progress", "reward_kwargs": {"scale": 0.25}}, 1.0),
        ({"reward": "terminal"}, 2.0),
        ({"reward": "promise"}, 0.0),  # no multiple of the PRM's value is right
        ({"reward": "outcome", "lora_r": 4}, 1.0),
    ],
)
def test_a_critic_from_the_prm_starts_where_the_reward_has_it(
    settings: dict[str, Any], walker_prm: Path, changes: dict[str, Any], factor: float
) -> None:
    expected = factor * prm_values(walker_prm)
    torch.testing.assert_close(first_values(load(settings, **changes)), expected, atol=1e-5, rtol=0)
    assert prm_values(walker_prm).abs().min() > 0.1


def test_values_of_states_are_taken_from_a_likelihood_head(
    settings: dict[str, Any], walker_prm: Path, walker_policy: Path, tmp_path: Path
) -> None:
    shutil.copytree(walker_prm, tmp_path / "prm")
    changes = {"head": "lm", "value_reads": "state_and_action", "lm_scale": 0.1}
    walker.manifest(walker_policy, **changes).save(tmp_path / "prm")
    found = first_values(load(settings, reward="outcome", prm=str(tmp_path / "prm")))
    torch.testing.assert_close(found, prm_values(walker_prm), atol=1e-5, rtol=0)


def test_another_start_starts_at_zero(settings: dict[str, Any], walker_policy: Path, tmp_path: Path) -> None:
    for changes in ({"prm": ""}, {"critic_model": str(walker_policy)}):
        assert not first_values(load(settings, reward="outcome", **changes)).any()


@pytest.mark.parametrize("changes", [{"activation": "sigmoid"}, {"head": "lm"}])
def test_a_prm_whose_output_is_not_a_value_lends_its_body_alone(
    settings: dict[str, Any], walker_prm: Path, walker_policy: Path, tmp_path: Path, changes: dict[str, str]
) -> None:
    """An lm head that was not trained on states has values of actions only, and those are sums."""
    shutil.copytree(walker_prm, tmp_path / "prm")
    walker.manifest(walker_policy, **changes).save(tmp_path / "prm")
    model = load(settings, reward="outcome", prm=str(tmp_path / "prm"))
    assert not first_values(model).any()
    assert model.critic is not None
    kept = load_scalar_model(str(walker_prm), dtype="float32").state_dict()
    found = model.critic.state_dict()
    assert all(torch.equal(found[name], kept[name]) for name in kept if not name.startswith("score"))


@pytest.fixture
def foreign_prm(foreign_folder: Path, walker_policy: Path, tmp_path: Path) -> Path:
    """A PRM on another backbone, with another vocabulary."""
    folder = tmp_path / "foreign_prm"
    model = load_scalar_model(str(foreign_folder), dtype="float32")
    torch.nn.init.normal_(model.score.weight, std=0.05, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
    renderer = templates.foreign()
    renderer.tokenizer.save_pretrained(folder)
    walker.manifest(walker_policy, template=renderer.template_hash).save(folder)
    return folder


@pytest.mark.trap("foreign vocabulary")
def test_trap_a_prm_of_another_vocabulary_is_read_in_its_own_tokens_and_is_no_critic(
    run: Run, tmp_path: Path, foreign_prm: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert Manifest.load(foreign_prm).template != walker.manifest(Path(settings["model"])).template
    run(prm=str(foreign_prm), iterations=2)
    assert "the critic starts from the policy" in caplog.text
    first, second = rows(tmp_path / "rl")
    assert first["prm/initial_value"] != 0
    assert second["ppo/value_loss"] > 0


def test_weights_of_another_vocabulary_are_refused(settings: dict[str, Any], foreign_folder: Path) -> None:
    with pytest.raises(MismatchError, match=r"critic_model: '.*' reads other tokens than the policy has"):
        load(settings, critic_model=str(foreign_folder))
