"""The scorer ``model_confidence``: the probability of each action under another model."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch

from rlprm import scorers
from rlprm.data.confidence import action_probabilities
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import ArtifactError, ConfigError, DataError, MismatchError
from rlprm.models.heads import LM, SCALAR
from rlprm.models.loading import load_causal_lm, load_lm_reward_model
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.waves import rollout
from rlprm.scorers.base import Scorer
from rlprm.scorers.model_confidence import ModelConfidence
from rlprm.scorers.policy_confidence import PolicyConfidence
from rlprm.stages.settings import EvaluateConfig
from rlprm.types import EpisodeSetting, Split, Trajectory
from tests.data.templates import foreign
from tests.prm.toy import separable
from tests.toys import corridor
from tests.toys.heads import with_random_head
from tests.toys.trajectories import of_words


def clone(folder: Path | str, **settings: object) -> Scorer:
    return scorers.build("clone", {"kind": "model_confidence", "model": str(folder), **settings})


@pytest.fixture(scope="module")
def sampled(tiny_folder: Path, renderer: ChatRenderer) -> list[Trajectory]:
    """Episodes of the tiny model itself; 6 tokens are few, so that many closing tokens are forced."""
    model = load_causal_lm(str(tiny_folder), dtype="float32")
    policy = HFPolicy(model, renderer, revision="tiny", max_new_tokens=6)
    jobs = [(task, sample) for task in corridor.tasks(Split.TEST, 0, 3) for sample in range(2)]
    return rollout(jobs, policy, EpisodeSetting(round_limit=3))


@pytest.mark.parametrize("per", ["action", "token"])
def test_under_the_policys_own_weights_it_is_the_policys_confidence(
    sampled: list[Trajectory], tiny_folder: Path, per: str
) -> None:
    own, stored = clone(tiny_folder, per=per).score(sampled), PolicyConfidence(per).score(sampled)
    assert any(t.action_mask[step.end] == 0 for t in sampled for step in t.steps)
    for a, b, t in zip(own, stored, sampled, strict=True):
        assert a.values == pytest.approx(b.values, rel=1e-4)
        assert (a.initial, b.initial) == (1.0, 1.0)
        assert a.tokens == len(t.token_ids)


def test_an_action_of_one_forced_token_has_probability_one_as_for_the_policy(tiny_folder: Path) -> None:
    made = of_words(["right"], True)
    (step,) = made.steps
    silent = replace(made, action_mask=(0,) * len(made.token_ids), logprobs=(0.0,) * len(made.token_ids))
    assert sum(silent.action_mask[step.start :]) == 0
    assert action_probabilities(silent, "action") == (1.0,)
    assert clone(tiny_folder).score([silent])[0].values == (1.0,)


def test_it_is_what_the_stock_language_model_says(tiny_folder: Path) -> None:
    made = of_words(["right", "left"], True)
    model = load_causal_lm(str(tiny_folder), dtype="float32")
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([made.token_ids])).logits[0].log_softmax(-1)
    expected = [
        math.exp(sum(float(logprobs[i - 1, made.token_ids[i]]) for i in range(step.start, step.end + 1)))
        for step in made.steps
    ]
    assert clone(tiny_folder).score([made])[0].values == pytest.approx(expected, rel=1e-4)


def test_batches_change_nothing_and_keep_the_order(tiny_folder: Path) -> None:
    trajectories = separable(5)
    together = clone(tiny_folder).score(trajectories)
    assert len({scores.values for scores in together}) > 1
    for scorer in (clone(tiny_folder, token_budget=1), clone(tiny_folder, token_budget=100)):
        for a, b in zip(scorer.score(trajectories), together, strict=True):
            assert a.values == pytest.approx(b.values, rel=1e-4)


def test_of_a_reward_model_with_an_lm_head_its_language_model_is_read(
    tiny_folder: Path, renderer: ChatRenderer, tmp_path: Path
) -> None:
    with_random_head(tiny_folder, LM).save_pretrained(tmp_path)
    renderer.tokenizer.save_pretrained(tmp_path)
    made = of_words(["right", "left"], True)
    (of_prm,), (of_policy,) = clone(tmp_path).score([made]), clone(tiny_folder).score([made])
    assert of_prm.values == pytest.approx(of_policy.values, rel=1e-5)


def test_a_model_with_a_scalar_head_is_refused(
    tiny_folder: Path, renderer: ChatRenderer, tmp_path: Path
) -> None:
    with_random_head(tiny_folder, SCALAR).save_pretrained(tmp_path)
    renderer.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"scalar head \(a PRM\), which gives actions no probability"):
        clone(tmp_path)


def test_wrong_settings_are_one_line(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="confidence_per: got 'word', allowed: action, token"):
        clone(tiny_folder, per="word")
    with pytest.raises(ArtifactError, match="no tokenizer at '/nowhere/at/all'"):
        clone("/nowhere/at/all")


def test_a_model_with_another_tokenizer_reads_actions_in_its_own_tokens(
    foreign_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = [of_words(["right", "left", "finish"], True), of_words(["wait"], False)]
    with caplog.at_level(logging.WARNING):
        found = clone(foreign_folder).score(data)
    own = [Rerenderer(foreign()).render(t) for t in data]
    assert found == clone(foreign_folder).score(own)
    assert [scores.tokens for scores in found] == [len(t.token_ids) for t in own]
    assert "rendered again with its own" in caplog.text


def test_trajectories_of_another_tokenizer_are_refused_if_there_is_none_to_render_them_with(
    tiny_folder: Path,
) -> None:
    model = load_lm_reward_model(str(tiny_folder), scale=1.0)
    blind = ModelConfidence("clone", model, "other")
    with pytest.raises(MismatchError, match=r"was rendered with template \w+, clone was trained with other"):
        blind.score([of_words(["right"], True)])


def test_what_cannot_be_scored_raises(tiny_folder: Path) -> None:
    empty = replace(of_words(["right"], True), token_ids=(), steps=(), error="RuntimeError: down")
    with pytest.raises(DataError, match="no tokens to score: RuntimeError: down"):
        clone(tiny_folder).score([empty])


def test_other_weights_in_the_same_folder_are_another_evaluation(tiny_folder: Path, tmp_path: Path) -> None:
    copytree(tiny_folder, tmp_path / "clone")
    setting = {"kind": "model_confidence", "model": str(tmp_path / "clone")}
    config = EvaluateConfig(
        environment="tests.toys.corridor", model=str(tiny_folder), scorers={"clone": setting}
    )
    before = config.revisions()["clone"]
    assert config.revisions()["clone"] == before
    model = load_causal_lm(str(tiny_folder), dtype="float32")
    model.get_input_embeddings().weight.data.mul_(2)
    model.save_pretrained(tmp_path / "clone")
    assert config.revisions()["clone"] != before
