"""The loss and its labels, worked out by hand from the values the model gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlprm import labels
from rlprm.errors import ConfigError
from rlprm.prm.trainer import PRMTrainer, collate
from tests.prm import toy
from tests.prm.toy import Build
from tests.toys.trajectories import of_words

LAM, BETA = 0.9, 0.5
DATA = (
    of_words(["right", "left", "finish"], True, task="a"),
    of_words(["left"], False, task="b"),
    of_words(["wait", "right"], False, task="c", score=0.3),
)
STEPS = 6


def batch(trainer: PRMTrainer, indices: Sequence[int] = (0, 1, 2)) -> dict[str, Tensor]:
    return trainer.batch_of(indices)


def loss_of(trainer: PRMTrainer, indices: Sequence[int] = (0, 1, 2)) -> float:
    steps = torch.tensor(float(STEPS))
    loss = trainer.compute_loss(trainer.model, batch(trainer, indices), num_items_in_batch=steps)
    return float(loss.detach())


def chains(trainer: PRMTrainer) -> list[list[float]]:
    """``[v_0 ... v_T]`` of each trajectory, each read alone."""
    return [trainer.predict_logits([t])[0].tolist() for t in DATA]


def td_gae(values: Sequence[float], outcome: float, lam: float) -> tuple[list[float], list[float]]:
    """Q̂_0 ... Q̂_T and Â_1 ... Â_T from the definition: a double sum, no scan."""
    chain = [*values[:-1], outcome]
    last = len(values) - 1
    deltas = {t: chain[t] - chain[t - 1] for t in range(1, last + 1)}
    progress = [sum(lam ** (k - t) * deltas[k] for k in range(t, last + 1)) for t in range(1, last + 1)]
    promise = [progress[0] + values[0]]
    promise += [progress[t - 1] + values[t - 1] for t in range(1, last)]
    return [*promise, outcome], progress


def loss_by_hand(
    values: Sequence[Sequence[float]], labelled: Sequence[Sequence[float]], outcomes: Sequence[float]
) -> float:
    """Return ``L_Q + β L_A`` of values against labels that were made of (perhaps other) values."""
    total = 0.0
    for v, old, outcome in zip(values, labelled, outcomes, strict=True):
        promise, progress = td_gae(old, outcome, LAM)
        total += sum(0.5 * (a - b) ** 2 for a, b in zip(v, promise, strict=True))
        total += BETA * sum((v[t] - v[t - 1] - progress[t - 1]) ** 2 for t in range(1, len(v)))
    return total / STEPS


OUTCOMES = (1.0, 0.0, 0.0)


def agentprm(build: Build, **settings: object) -> PRMTrainer:
    return build(DATA, label_estimator="td_gae", label_estimator_kwargs={"lam": LAM}, beta=BETA, **settings)


def test_the_first_epoch_learns_returns_at_every_read_and_no_progress(build: Build) -> None:
    trainer = agentprm(build)
    trainer.start_epoch(1)
    expected = sum(
        0.5 * (v - r) ** 2 for chain, r in zip(chains(trainer), OUTCOMES, strict=True) for v in chain
    )
    assert expected > 0.01
    assert loss_of(trainer) == pytest.approx(expected / STEPS, rel=1e-5)


@pytest.mark.parametrize("relabel", ["epoch", "batch"])
def test_later_epochs_learn_td_gae_labels_of_the_current_values(build: Build, relabel: str) -> None:
    trainer = agentprm(build, relabel=relabel)
    trainer.start_epoch(2)
    values = chains(trainer)
    assert loss_of(trainer) == pytest.approx(loss_by_hand(values, values, OUTCOMES), rel=1e-5)


def test_labels_of_an_epoch_stay_while_weights_move(build: Build) -> None:
    by_epoch, by_batch = agentprm(build, relabel="epoch"), agentprm(build, relabel="batch", folder="b")
    for trainer in (by_epoch, by_batch):
        trainer.start_epoch(2)
        before = chains(trainer)
        with torch.no_grad():
            trainer.model.score.weight.mul_(-1.5)
        after = chains(trainer)
        old = before if trainer is by_epoch else after
        assert loss_of(trainer) == pytest.approx(loss_by_hand(after, old, OUTCOMES), rel=1e-5)
        trainer.start_epoch(3)
        assert loss_of(trainer) == pytest.approx(loss_by_hand(after, after, OUTCOMES), rel=1e-5)


def test_labels_of_an_epoch_belong_to_their_trajectory_in_any_batch(build: Build) -> None:
    trainer = agentprm(build)
    trainer.start_epoch(2)
    parts = loss_of(trainer, (2, 0)) + loss_of(trainer, (1,))
    assert parts == pytest.approx(loss_of(trainer), rel=1e-5)


def test_no_cold_start_if_none_is_asked_for(build: Build) -> None:
    trainer = agentprm(build, cold_start_epochs=0)
    trainer.start_epoch(1)
    values = chains(trainer)
    assert loss_of(trainer) == pytest.approx(loss_by_hand(values, values, OUTCOMES), rel=1e-5)


def test_a_whole_run_refreshes_at_each_epoch(build: Build) -> None:
    """Two epochs of one update each: the second update follows the labels of the values after the first."""
    trainer = agentprm(build, num_train_epochs=2)
    twin = agentprm(build, folder="b")
    trainer.train()
    rate = trainer.args.learning_rate
    for epoch in (1, 2):
        twin.start_epoch(epoch)
        twin.model.train()
        twin.model.zero_grad()
        twin.compute_loss(twin.model, batch(twin), num_items_in_batch=torch.tensor(6.0)).backward()
        with torch.no_grad():
            for parameter in twin.model.parameters():
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad
    torch.testing.assert_close(toy.weights(trainer), toy.weights(twin), atol=1e-6, rtol=0)


@pytest.mark.parametrize("relabel", ["epoch", "batch"])
def test_a_cold_start_of_half_an_epoch_learns_returns_in_its_first_half(build: Build, relabel: str) -> None:
    """Three updates of one trajectory each; the cold start covers the first one."""
    settings: dict[str, Any] = {
        "num_train_epochs": 1, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1,
        "cold_start_epochs": 0.3, "relabel": relabel,
    }  # fmt: skip
    trainer = agentprm(build, **settings)
    seen = []

    def watched(inputs: Any, values: Any, plain: Any = trainer.label_table.labels_of) -> Any:
        seen.append(
            (trainer.label_table.is_cold, int(inputs["index"]), chains(trainer), plain(inputs, values))
        )
        return seen[-1][-1]

    trainer.label_table.labels_of = watched  # type: ignore[method-assign]
    trainer.train()
    assert [cold for cold, *_ in seen] == [True, False, False]
    at_the_end_of_the_cold_start = seen[1][2]
    for cold, index, values, found in seen:
        outcome = OUTCOMES[index]
        made_of = values if relabel == "batch" else at_the_end_of_the_cold_start
        chain = torch.tensor([made_of[index]])
        batch = (chain, torch.tensor([outcome]), torch.tensor([chain.shape[1] - 1]))
        name, kwargs = (
            ("returns", {}) if cold else ("td_gae", {"lam": trainer.config.label_estimator_kwargs["lam"]})
        )
        expected = labels.load(name).label(*batch, **kwargs)
        torch.testing.assert_close(found.promise, expected.promise, atol=1e-5, rtol=0)


def test_held_out_values_are_measured_against_returns_in_every_epoch(build: Build) -> None:
    trainer = agentprm(build)
    values = chains(trainer)
    expected = sum(0.5 * (v - r) ** 2 for chain, r in zip(values, OUTCOMES, strict=True) for v in chain)
    assert expected / STEPS != pytest.approx(loss_by_hand(values, values, OUTCOMES), rel=0.01)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected / STEPS, rel=1e-5)
    for epoch in (1, 2, 3):
        trainer.start_epoch(epoch)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(expected / STEPS, rel=1e-5)


def test_a_baselines_held_out_values_are_measured_against_its_own_labels(build: Build) -> None:
    trainer = build(DATA, label_estimator="outcome")
    last = sum(0.5 * (chain[-1] - r) ** 2 for chain, r in zip(chains(trainer), OUTCOMES, strict=True))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(last / STEPS, rel=1e-5)


def test_graded_outcomes_are_used_where_asked_for(build: Build) -> None:
    trainer = agentprm(build, outcome="score")
    trainer.start_epoch(2)
    values = chains(trainer)
    assert loss_of(trainer) == pytest.approx(loss_by_hand(values, values, (1.0, 0.0, 0.3)), rel=1e-5)


def test_an_outcome_of_another_name_is_refused() -> None:
    assert collate(DATA, "success")["outcomes"].tolist() == [1.0, 0.0, 0.0]
    assert collate(DATA, "score")["outcomes"].tolist() == pytest.approx([1.0, 0.0, 0.3])
    with pytest.raises(ConfigError, match="outcome: got 'definition', allowed: success, score"):
        collate(DATA, "definition")


def test_the_last_step_can_weigh_more(build: Build) -> None:
    one, three = (
        build(DATA, label_estimator="returns", last_step_weight=w, folder=str(w)) for w in (1.0, 3.0)
    )
    last = sum(0.5 * (chain[-1] - r) ** 2 for chain, r in zip(chains(one), OUTCOMES, strict=True)) / STEPS
    assert last > 1e-3
    assert loss_of(three) - loss_of(one) == pytest.approx(2 * last, rel=1e-4)


def test_cross_entropy_on_a_sigmoid_head(build: Build) -> None:
    trainer = build(DATA, loss="bce", activation="sigmoid", beta=BETA, label_estimator_kwargs={"lam": LAM})
    trainer.start_epoch(2)
    total = 0.0
    for logits, outcome in zip(chains(trainer), OUTCOMES, strict=True):
        v = [1 / (1 + math.exp(-z)) for z in logits]
        promise, progress = td_gae(v, outcome, LAM)
        for value, target in zip(v, promise, strict=True):
            target = min(max(target, 0.0), 1.0)
            for p, q in ((target, value), (1 - target, 1 - value)):
                total += p * math.log(p / q) if p > 0 else 0.0
        total += BETA * sum((v[t] - v[t - 1] - progress[t - 1]) ** 2 for t in range(1, len(v)))
    assert loss_of(trainer) == pytest.approx(total / STEPS, rel=1e-4)


def test_an_orm_learns_from_the_last_action_alone(build: Build) -> None:
    trainer = build(DATA, label_estimator="outcome")
    seen: list[Tensor] = []

    def keep(module: object, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    trainer.model.score.register_forward_hook(keep)
    trainer.compute_loss(trainer.model, batch(trainer), num_items_in_batch=torch.tensor(6.0)).backward()
    (logits,) = seen
    assert logits.grad is not None
    touched = {tuple(place) for place in logits.grad.squeeze(-1).nonzero().tolist()}
    assert touched == {(row, t.steps[-1].end) for row, t in enumerate(DATA)}


def test_agentprm_learns_from_action_ends_and_the_end_of_the_prompt_alone(build: Build) -> None:
    trainer = agentprm(build)
    trainer.start_epoch(2)
    seen: list[Tensor] = []

    def keep(module: object, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    trainer.model.score.register_forward_hook(keep)
    trainer.compute_loss(trainer.model, batch(trainer), num_items_in_batch=torch.tensor(6.0)).backward()
    assert seen[0].grad is not None
    touched = {tuple(place) for place in seen[0].grad.squeeze(-1).nonzero().tolist()}
    assert touched <= {(row, position) for row, t in enumerate(DATA) for position in t.value_positions}
    assert {(row, t.prompt_length - 1) for row, t in enumerate(DATA)} <= touched


def test_nothing_after_the_last_action_matters(build: Build) -> None:
    longer = [
        replace(t, token_ids=(*t.token_ids, 7, 8, 9), action_mask=(*t.action_mask, 0, 0, 0)) for t in DATA
    ]
    plain, padded = agentprm(build), build(
        longer, label_estimator_kwargs={"lam": LAM}, beta=BETA, folder="b"
    )  # fmt: skip
    for trainer in (plain, padded):
        trainer.start_epoch(2)
    assert loss_of(padded) == pytest.approx(loss_of(plain), rel=1e-6)
    spoilt = of_words(["right", "left", "finish"], True, task="a", closing="You have won a prize.")
    assert spoilt.token_ids == DATA[0].token_ids
    assert spoilt.messages != DATA[0].messages


def test_training_mode_changes_no_value(build: Build) -> None:
    model = build(DATA).model.train()
    ids = torch.tensor([DATA[0].token_ids])
    first, second = model(input_ids=ids).logits, model(input_ids=ids).logits
    assert torch.equal(first, second)
    assert torch.equal(first, model.eval()(input_ids=ids).logits)
    assert first.std() > 0


def test_where_states_are_read_the_same_loss_runs_over_the_longer_chain(build: Build) -> None:
    trainer = agentprm(build, value_reads="state_and_action", relabel="batch")
    trainer.start_epoch(2)
    interleaved = chains(trainer)
    assert [len(chain) for chain in interleaved] == [6, 2, 4]
    steps = sum(len(chain) - 1 for chain in interleaved)
    loss = trainer.compute_loss(trainer.model, batch(trainer), num_items_in_batch=torch.tensor(steps))
    expected = loss_by_hand(interleaved, interleaved, OUTCOMES) * STEPS / steps
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert int(batch(trainer)["lengths"].sum()) == steps
