"""Values made of a state's value and of how probable an action is, against the plain definition."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    T5Config,
)

from rlprm.errors import ArtifactError
from rlprm.models import loading
from rlprm.models.heads import LM
from rlprm.models.heads.lm_head import HEAD, LMHead
from rlprm.models.heads.reading import read_logits, read_sequences, stack_positions
from rlprm.models.heads.value_positions import STATE_AND_ACTION, VALUE_READS, ValuePosition, chain_positions
from rlprm.models.loading import head_of, load_causal_lm, load_lm_reward_model, load_scalar_model
from tests.prm.toy import separable
from tests.toys.trajectories import of_words

SCALE = 0.3


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> LMHead:
    made = load_lm_reward_model(str(tiny_folder), scale=SCALE, dtype="float32")
    generator = torch.Generator().manual_seed(0)
    for name in HEAD:
        torch.nn.init.normal_(made.get_submodule(name).weight, std=0.2, generator=generator)
    return made.eval()


@torch.no_grad()
def by_definition(model: LMHead, folder: Path, ids: tuple[int, ...], read: ValuePosition) -> float:
    """One forward of the whole language model, all of its logits."""
    output = AutoModelForCausalLM.from_pretrained(folder)(
        input_ids=torch.tensor([ids]), output_hidden_states=True
    )
    logprobs_LV = torch.log_softmax(output.logits[0], -1)
    hidden_D: Tensor = output.hidden_states[-1][0, read.place]
    value = float(model.score(hidden_D))
    if read.stop > read.start:
        chosen = [float(logprobs_LV[i - 1, ids[i]]) for i in range(read.start, read.stop)]
        value += float(model.offset(hidden_D)) + SCALE * sum(chosen)
    return value


@pytest.mark.parametrize("value_reads", VALUE_READS)
def test_values_are_those_of_the_definition(model: LMHead, tiny_folder: Path, value_reads: str) -> None:
    data = separable(2)
    positions = [chain_positions(t, value_reads, LM) for t in data]
    found = read_sequences(model, [t.token_ids for t in data], positions, [[3, 0], range(4, 8), [1, 2]])
    for t, row, values in zip(data, positions, found, strict=True):
        expected = [by_definition(model, tiny_folder, t.token_ids, read) for read in row]
        assert values == pytest.approx(expected, abs=1e-5)
        assert len({round(value, 4) for value in values}) > 1


def test_an_untrained_head_knows_what_the_policy_knows(tiny_folder: Path) -> None:
    fresh = load_lm_reward_model(str(tiny_folder), scale=1.0, dtype="float32")
    t = of_words(["right", "left"], True)
    ids, positions = torch.tensor([t.token_ids]), stack_positions([chain_positions(t, STATE_AND_ACTION, LM)])
    (x_1, v_1, x_2, v_2) = read_logits(fresh, ids, positions)[0].tolist()
    assert x_1 == x_2 == 0.0
    with torch.no_grad():
        logprobs = torch.log_softmax(AutoModelForCausalLM.from_pretrained(tiny_folder)(ids).logits[0], -1)
    for value, step in zip((v_1, v_2), t.steps, strict=True):
        chosen = [float(logprobs[i - 1, t.token_ids[i]]) for i in range(step.start, step.end + 1)]
        assert value == pytest.approx(sum(chosen), abs=1e-4)


def test_a_closing_token_that_was_forced_does_not_count() -> None:
    t = of_words(["right"], True)
    step = t.steps[0]
    mask = tuple(0 if i == step.end else m for i, m in enumerate(t.action_mask))
    forced = type(t)(**{**vars(t), "action_mask": mask})
    assert chain_positions(t, head=LM)[1] == ValuePosition(step.start - 1, step.start, step.end + 1)
    without = chain_positions(forced, head=LM)[1]
    assert (without.place, counted(without)) == (step.start - 1, set(range(step.start, step.end)))
    # A message in which nothing was sampled has the value of the state before it.
    silent = type(t)(**{**vars(t), "action_mask": (0,) * len(t.action_mask)})
    assert counted(chain_positions(silent, head=LM)[1]) == set()
    # A closing token alone has to do: every action has a value of its own.
    alone = replace(step, start=step.end)
    closed = type(t)(**{**vars(forced), "steps": (alone,)})
    assert counted(chain_positions(closed, head=LM)[1]) == {step.end}


def counted(position: ValuePosition) -> set[int]:
    """Return the tokens whose log-probabilities count."""
    inside = set(range(position.start, position.stop))
    return inside - set(range(position.skip_start, position.skip_stop))


def test_what_stands_in_the_padding_changes_nothing(model: LMHead) -> None:
    short, long = (of_words(actions, True) for actions in (["right"], ["left", "wait", "right"]))
    width = len(long.token_ids)
    values = []
    for fill in (0, 7):
        ids = torch.tensor([[*short.token_ids, *[fill] * (width - len(short.token_ids))], long.token_ids])
        positions = stack_positions([chain_positions(t, head=LM) for t in (short, long)])
        with torch.no_grad():
            values.append(read_logits(model, ids, positions)[0, :2])
    assert torch.equal(*values)


def test_gradients_reach_head_body_and_output_layer(tiny_folder: Path) -> None:
    model = load_lm_reward_model(str(tiny_folder), scale=SCALE, dtype="float32")
    t = of_words(["right"], True)
    positions = stack_positions([chain_positions(t, head=LM)])
    read_logits(model, torch.tensor([t.token_ids]), positions)[0, 1].backward()
    for name in (*HEAD, "model.layers.0.mlp.up_proj", "lm_head"):
        weight = model.get_submodule(name).weight
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, (
            name
        )  # the head is at zero and passes nothing on; the likelihood does


def test_a_checkpoint_is_two_stock_models(model: LMHead, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    t = of_words(["right", "left"], True)
    positions = [chain_positions(t, STATE_AND_ACTION, LM)]
    again = load_lm_reward_model(str(tmp_path), dtype="float32")
    whole = read_sequences(model, [t.token_ids], positions, [[0]])
    assert read_sequences(again, [t.token_ids], positions, [[0]]) == whole
    assert again.config.lm_scale == SCALE
    values = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        of_states = values(torch.tensor([t.token_ids])).logits[0, [s.start - 1 for s in t.steps], 0]
    assert of_states.tolist() == pytest.approx(whole[0][0::2], abs=1e-5)
    critic = load_scalar_model(str(tmp_path), dtype="float32")
    assert torch.equal(critic.score.weight, model.score.weight)
    writes = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(writes.lm_head.weight, model.lm_head.weight)


def test_it_is_not_taken_for_a_policy_nor_a_policy_for_it(
    model: LMHead, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=re.escape("(a PRM), not a policy")):
        load_causal_lm(str(tmp_path))
    # Under ZeRO-3 nothing tells of weights that a policy does not have.
    monkeypatch.setattr(loading, "zero_stage", lambda: 3)
    with pytest.raises(ArtifactError, match=re.escape("(a PRM), not a policy")):
        load_causal_lm(str(tmp_path))
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="no lm head"):
        load_lm_reward_model(str(tiny_folder))
    assert head_of(model) == sorted(HEAD)


def test_models_that_do_not_fit_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path / "t5")
    with pytest.raises(ArtifactError, match="models of type t5 are no causal language models"):
        load_lm_reward_model(str(tmp_path / "t5"), scale=0.1)
    other = AutoModelForTokenClassification.from_pretrained(tiny_folder, num_labels=3)
    other.save_pretrained(tmp_path / "labels")
    with pytest.raises(ArtifactError, match="does not fit a model with one label"):
        load_lm_reward_model(str(tmp_path / "labels"), scale=0.1)


def test_an_output_layer_of_its_own_is_kept(tiny_folder: Path, tmp_path: Path) -> None:
    untied = AutoModelForCausalLM.from_pretrained(tiny_folder, tie_word_embeddings=False)
    torch.nn.init.normal_(untied.lm_head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    untied.save_pretrained(tmp_path / "policy")
    model = load_lm_reward_model(str(tmp_path / "policy"), scale=SCALE, dtype="float32")
    model.save_pretrained(tmp_path / "prm")
    t = of_words(["right", "left"], True)
    positions = [chain_positions(t, STATE_AND_ACTION, LM)]
    again = load_lm_reward_model(str(tmp_path / "prm"), dtype="float32")
    found = read_sequences(again, [t.token_ids], positions, [[0]])
    assert found == read_sequences(model, [t.token_ids], positions, [[0]])
    tied = load_lm_reward_model(str(tiny_folder), scale=SCALE, dtype="float32")
    assert found != read_sequences(tied, [t.token_ids], positions, [[0]])


@pytest.mark.trap("rounded values")
def test_trap_values_of_a_bfloat16_body_are_not_rounded_to_bfloat16(tiny_folder: Path) -> None:
    model = load_lm_reward_model(str(tiny_folder), scale=0.01, dtype="bfloat16", device=torch.device("cpu"))
    torch.nn.init.normal_(model.score.weight, std=0.005, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(model.score.bias, 0.75)
    ids = torch.randint(0, 300, (2, 30), generator=torch.Generator().manual_seed(3))
    positions = stack_positions([[ValuePosition(i, i + 1, i + 2) for i in range(29)]] * 2)
    with torch.no_grad():
        values = read_logits(model, ids, positions)
    assert values.dtype == torch.float32
    assert (values != values.to(torch.bfloat16).float()).float().mean() > 0.9
