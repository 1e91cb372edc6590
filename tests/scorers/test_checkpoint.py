"""Scores of a checkpoint: every step in one forward, exactly what its own prefix would score."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, PreTrainedModel

from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import ArtifactError, DataError, MismatchError
from rlprm.models.loading import load_scalar_model
from rlprm.models.manifest import Manifest
from rlprm.scorers import Scorer
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.types import StopReason, Trajectory
from tests.data.templates import foreign
from tests.prm.toy import separable
from tests.toys.manifests import manifest
from tests.toys.trajectories import of_words


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> PreTrainedModel:
    """With a random head, in evaluation mode."""
    found = load_scalar_model(str(tiny_folder), dtype="float32").eval()
    head = found.score.weight
    head.data.copy_(0.3 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0)))
    return found


Make = Callable[..., CheckpointScorer]


@pytest.fixture
def make(model: PreTrainedModel, renderer: ChatRenderer) -> Make:
    def scorer(*, token_budget: int = 16_384, **changed: Any) -> CheckpointScorer:
        made = manifest(renderer.template_hash, **changed)
        return CheckpointScorer("agentprm", model, made, token_budget=token_budget)

    return scorer


def prefix(t: Trajectory, steps: int) -> Trajectory:
    """The trajectory as it was after its first actions."""
    length = t.steps[steps - 1].end + 1
    return replace(
        t,
        token_ids=t.token_ids[:length],
        action_mask=t.action_mask[:length],
        logprobs=t.logprobs[:length],
        steps=t.steps[:steps],
        stop=None,
    )


def test_one_forward_scores_every_step_as_its_prefix_alone_would(make: Make) -> None:
    t = of_words(["right", "left", "wait", "right", "finish"], True)
    (whole,) = make().score([t])
    assert len(whole.values) == 5
    assert len(set(whole.values)) == 5
    for steps in range(1, 6):
        (alone,) = make().score([prefix(t, steps)])
        assert alone.values[-1] == pytest.approx(whole.values[steps - 1], abs=1e-5)
        assert alone.initial == pytest.approx(whole.initial, abs=1e-5)


@pytest.mark.parametrize("reads", ["action", "state_and_action"])
def test_a_search_that_grows_scores_as_if_each_candidate_were_read_whole(make: Make, reads: str) -> None:
    growing, fed, from_the_start = make(value_reads=reads), 0, 0
    full = [t for t in separable(6) if len(t.steps) >= 3]
    for steps in (1, 2, 3):
        candidates = [prefix(t, steps) for t in full]
        whole = make(value_reads=reads).score([replace(t, stop=StopReason.DECLARED) for t in candidates])
        for found, expected in zip(growing.score(candidates), whole, strict=True):
            assert found.values == pytest.approx(expected.values, abs=1e-5)
            assert found.states == pytest.approx(expected.states, abs=1e-5)
            assert found.initial == pytest.approx(expected.initial, abs=1e-5)
            fed, from_the_start = fed + found.tokens, from_the_start + expected.tokens
    assert from_the_start == sum(len(prefix(t, n).token_ids) for t in full for n in (1, 2, 3))
    # Each token of each trajectory once, and the prompts that a task's branches share only once for all.
    assert fed <= sum(len(prefix(t, 3).token_ids) for t in full)


def test_the_last_round_of_a_search_is_read_by_what_is_new_though_all_its_candidates_are_finished(
    make: Make,
) -> None:
    scorer, full = make(), [of_words(["right", "left"], True, task=f"x{i}") for i in range(2)]
    scorer.score([prefix(t, 1) for t in full])
    ended = [replace(prefix(t, 2), stop=StopReason.ROUND_LIMIT) for t in full]
    found, whole = scorer.score(ended), make().score(ended)
    assert [s.tokens for s in found] == [t.steps[1].end - t.steps[0].end for t in full]
    assert [s.tokens for s in whole] == [len(t.token_ids) for t in ended]
    for a, b in zip(found, whole, strict=True):
        assert a.values == pytest.approx(b.values, abs=1e-5)
        assert a.initial == pytest.approx(b.initial, abs=1e-5)


def test_reading_states_too_leaves_the_actions_values_as_they_are(make: Make, model: PreTrainedModel) -> None:
    trajectories = separable(3)
    plain, both = make().score(trajectories), make(value_reads="state_and_action").score(trajectories)
    for t, a, b in zip(trajectories, plain, both, strict=True):
        assert b.values == pytest.approx(a.values, abs=1e-5)
        assert b.initial == pytest.approx(a.initial, abs=1e-5)
        with torch.no_grad():
            raw = model(input_ids=torch.tensor([t.token_ids])).logits[0, :, 0]
        assert b.states == pytest.approx(raw[[step.start - 1 for step in t.steps]].tolist(), abs=1e-5)
        assert a.states == ()


def test_batches_change_nothing_and_keep_the_order(make: Make, model: PreTrainedModel) -> None:
    trajectories = separable(5)
    together = make().score(trajectories)
    longest = max(len(t.token_ids) for t in trajectories)
    for budget in (1, 2 * longest, 10**6):
        for a, b in zip(make(token_budget=budget).score(trajectories), together, strict=True):
            assert [a.initial, *a.values] == pytest.approx([b.initial, *b.values], abs=1e-5)
    for t, scores in zip(trajectories, together, strict=True):
        with torch.no_grad():
            raw = model(input_ids=torch.tensor([t.token_ids])).logits[0, :, 0]
        assert [scores.initial, *scores.values] == pytest.approx(
            raw[list(t.value_positions)].tolist(), abs=1e-5
        )


def test_stock_transformers_reads_the_same_numbers(
    make: Make, model: PreTrainedModel, renderer: ChatRenderer, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    manifest(renderer.template_hash, activation="sigmoid").save(tmp_path)
    t = of_words(["right", "finish"], True)
    (scores,) = CheckpointScorer.load("prm", str(tmp_path)).score([t])
    stock = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = stock(input_ids=torch.tensor([t.token_ids])).logits[0, list(t.value_positions), 0]
    assert [scores.initial, *scores.values] == pytest.approx(torch.sigmoid(logits).tolist(), abs=1e-5)


def test_tokens_that_were_processed_are_counted(make: Make) -> None:
    long, short = of_words(["right"] * 4, True), of_words(["left"], False)
    assert [s.tokens for s in make().score([long, short])] == [len(long.token_ids), len(short.token_ids)]


def test_it_is_a_scorer(make: Make) -> None:
    scorer: Scorer = make()
    assert scorer.name == "agentprm"
    assert scorer.score([]) == []


def test_the_model_is_left_in_the_mode_it_was_in(make: Make, model: PreTrainedModel) -> None:
    for training in (True, False):
        model.train(training)
        make().score([of_words(["right"], True)])
        assert model.training is training


def test_another_template_is_refused(make: Make) -> None:
    foreign = replace(of_words(["right"], True, task="x7"), template="deadbeef")
    with pytest.raises(MismatchError, match=r"x7 was rendered with template deadbeef, agentprm was trained"):
        make().score([of_words(["right"], True), foreign])


@pytest.fixture
def foreign_prm(foreign_folder: Path, tmp_path: Path) -> str:
    """A PRM that knows other words than the policy, and reads them with a random head."""
    model = load_scalar_model(str(foreign_folder))
    torch.nn.init.normal_(model.score.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "foreign")
    foreign().tokenizer.save_pretrained(tmp_path / "foreign")
    manifest(foreign().template_hash).save(tmp_path / "foreign")
    return str(tmp_path / "foreign")


def test_a_model_with_another_tokenizer_reads_trajectories_in_its_own_tokens(
    foreign_prm: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = [of_words(["right", "left", "finish"], True), of_words(["wait"], False)]
    scorer = CheckpointScorer.load("other", foreign_prm)
    with caplog.at_level(logging.WARNING):
        found = scorer.score(data) + scorer.score(data)
    own = [Rerenderer(foreign()).render(t) for t in data]
    assert found == scorer.score(own) * 2
    assert [len(scores.values) for scores in found[:2]] == [3, 1]
    assert [scores.tokens for scores in found[:2]] == [len(t.token_ids) for t in own]
    assert [scores.tokens for scores in found[:2]] != [len(t.token_ids) for t in data]
    (said,) = [r.message for r in caplog.records]  # once
    assert data[0].template in said
    assert foreign().template_hash in said


@pytest.mark.trap("tokenizer class")
def test_trap_a_prm_folder_whose_tokenizer_was_replaced_is_refused(
    foreign_prm: str, renderer: ChatRenderer
) -> None:
    renderer.tokenizer.save_pretrained(foreign_prm)
    with pytest.raises(MismatchError, match=r"but the tokenizer in .* has"):
        CheckpointScorer.load("other", foreign_prm).score([replace(of_words(["right"], True), template="x")])


def test_more_tokens_than_the_model_takes_are_refused(make: Make) -> None:
    long = of_words(["right"] * 60, True, task="x7")
    assert len(long.token_ids) > 512
    with pytest.raises(DataError, match=r"task x7 has \d+ tokens for agentprm, which takes 512"):
        make().score([long])


def test_what_cannot_be_scored_raises(make: Make, tiny_folder: Path, renderer: ChatRenderer) -> None:
    empty = replace(of_words(["right"], True), token_ids=(), steps=(), error="RuntimeError: down")
    with pytest.raises(DataError, match="no tokens to score: RuntimeError: down"):
        make().score([empty])
    broken = load_scalar_model(str(tiny_folder), dtype="float32")
    broken.score.weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        CheckpointScorer("agentprm", broken, manifest(renderer.template_hash)).score(
            [of_words(["right"], True)]
        )


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    original = manifest("hash", env_kwargs={"levels": ["GoToLocal"]}, round_limit=12)
    original.save(tmp_path)
    assert Manifest.load(tmp_path) == original


def test_a_folder_without_manifest_is_no_prm(tiny_folder: Path, tmp_path: Path) -> None:
    for folder in (tiny_folder, tmp_path / "nowhere"):
        with pytest.raises(ArtifactError, match=r"is not a PRM|no PRM at"):
            CheckpointScorer.load("prm", str(folder))


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    manifest("hash", format=2).save(tmp_path)
    with pytest.raises(DataError, match="has format 2, this version reads 1"):
        Manifest.load(tmp_path)
    (tmp_path / "prm_manifest.json").write_text('{"label_estimator": "td_gae"}')
    with pytest.raises(DataError, match="does not fit this version"):
        Manifest.load(tmp_path)
    (tmp_path / "prm_manifest.json").write_text("[1]")
    with pytest.raises(DataError):
        Manifest.load(tmp_path)


def test_a_mismatch_names_both_sides_of_every_difference() -> None:
    made = manifest("hash")
    made.require(end="declared", prompt="none")
    with pytest.raises(MismatchError) as caught:
        made.require(end="on_success", prompt="short", action_format="action_only")
    assert "end: trained with 'declared', used with 'on_success'" in str(caught.value)
    assert "prompt: trained with 'none', used with 'short'" in str(caught.value)
    assert "action_format" not in str(caught.value)
