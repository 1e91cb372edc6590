"""Each estimator by hand, the conversion to plain values, and the cold start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlprm import labels
from rlprm.errors import ConfigError, DataError, UnknownComponentError
from rlprm.labels import LabelBatch, outcome, returns, td_gae
from rlprm.types import StepLabels, Trajectory
from tests.toys.trajectories import trajectory

VALUES = torch.tensor([[0.5, 0.6, 0.4, 0.9], [0.2, 0.3, 0.0, 0.0]])
OUTCOMES = torch.tensor([1.0, 0.0])
LENGTHS = torch.tensor([3, 1])


def close(actual: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0.0, atol=1e-6)


def test_td_gae_by_hand() -> None:
    # first row worked out in tests/functional/test_returns.py;  second: Â_1 = 0 - .2, Q̂_1 = Q̂_0 = 0
    batch = td_gae.label(VALUES, OUTCOMES, LENGTHS, lam=0.5)
    close(batch.promise, [[0.65, 0.65, 0.7, 1.0], [0.0, 0.0, 0.0, 0.0]])
    close(batch.progress, [[0.15, 0.1, 0.6], [-0.2, 0.0, 0.0]])
    close(batch.promise_weight, [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    close(batch.progress_weight, [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def test_td_gae_uses_the_papers_lambda_unless_told() -> None:
    default, paper = (td_gae.label(VALUES, OUTCOMES, LENGTHS, **kwargs) for kwargs in ({}, {"lam": 0.95}))
    assert torch.equal(default.promise, paper.promise)


def test_td_gae_refuses_a_discount() -> None:
    td_gae.label(VALUES, OUTCOMES, LENGTHS, gamma=1.0)
    with pytest.raises(ConfigError, match=r"defined for gamma = 1, got 0\.99"):
        td_gae.label(VALUES, OUTCOMES, LENGTHS, gamma=0.99)


def test_td_gae_counts_lambda_for_each_link_or_each_action() -> None:
    # worked out in tests/functional/test_returns.py: x_1, v_1, x_2, v_2, x_3, v_3
    chain = torch.tensor([[0.5, 0.6, 0.3, 0.4, 0.6, 0.9]])
    won, links = torch.ones(1), torch.tensor([5])

    def progress(lam_per: str, value_links: int) -> Tensor:
        kwargs = {"lam": 0.5, "lam_per": lam_per}
        return labels.make_labels(td_gae, chain, won, links, kwargs, links_per_action=value_links).progress

    close(progress("link", 2), [[0.025, -0.15, 0.3, 0.4, 0.4]])
    close(progress("action", 2), [[0.15, 0.1, 0.4, 0.6, 0.4]])
    assert torch.equal(progress("action", 1), progress("link", 1))  # every link is an action's


def test_how_a_chain_is_read_is_no_setting_of_an_estimator() -> None:
    with pytest.raises(ConfigError, match="no setting 'links_per_action'; allowed: lam, lam_per, gamma"):
        labels.check_settings("td_gae", {"links_per_action": 2})
    with pytest.raises(ConfigError, match="lam_per: got 'step', allowed: link, action"):
        labels.check_settings("td_gae", {"lam_per": "step"})
    made = labels.make_labels(returns, None, OUTCOMES, LENGTHS, {}, links_per_action=2)
    assert torch.equal(made.promise, returns.label(None, OUTCOMES, LENGTHS).promise)


def test_returns_are_the_outcome_everywhere_and_nothing_for_progress() -> None:
    batch = returns.label(None, OUTCOMES, LENGTHS)
    close(batch.promise, [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    close(batch.promise_weight, [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    close(batch.progress_weight, [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_returns_equal_td_gae_at_lambda_one() -> None:
    batch, reference = (
        returns.label(None, OUTCOMES, LENGTHS),
        td_gae.label(VALUES, OUTCOMES, LENGTHS, lam=1.0),
    )
    torch.testing.assert_close(batch.promise, reference.promise)
    assert torch.equal(batch.promise_weight, reference.promise_weight)


def test_outcome_labels_the_last_action_alone() -> None:
    batch = outcome.label(None, OUTCOMES, LENGTHS)
    close(batch.promise, [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    close(batch.promise_weight, [[0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    close(batch.progress_weight, [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_outcome_gives_a_trajectory_without_actions_no_target() -> None:
    batch = outcome.label(None, torch.ones(1), torch.zeros(1, dtype=torch.long))
    close(batch.promise_weight, [[0.0, 0.0]])


# --- settings ---


def test_settings_are_checked_by_name_and_by_value() -> None:
    labels.check_settings("td_gae", {"lam": 0.9})
    with pytest.raises(ConfigError, match="no setting 'beta', 'lmbda'; allowed: lam, lam_per, gamma"):
        labels.check_settings("td_gae", {"lmbda": 0.9, "beta": 1.0})
    with pytest.raises(ConfigError, match="allowed: none"):
        labels.check_settings("outcome", {"lam": 0.9})
    with pytest.raises(ConfigError, match=r"lam must lie in \[0, 1\], got 95"):
        labels.check_settings("td_gae", {"lam": 95})
    with pytest.raises(UnknownComponentError, match=r"unknown label estimator 'base'; known: .*td_gae"):
        labels.check_settings("base", {})


def test_an_estimator_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_labels_for_a_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "halved.py").write_text(
        "from dataclasses import replace\n"
        "from rlprm.labels import returns\n"
        "NEEDS_VALUES = False\n"
        "def label(values_BT1, outcomes_B, lengths_B, *, factor=0.5):\n"
        "    batch = returns.label(values_BT1, outcomes_B, lengths_B)\n"
        "    return replace(batch, promise=batch.promise * factor)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    name = "my_labels_for_a_test.halved"
    labels.check_settings(name, {"factor": 0.25})
    assert labels.load(name).label(None, OUTCOMES, LENGTHS, factor=0.25).promise[0].tolist() == [0.25] * 4
    with pytest.raises(ConfigError, match="allowed: factor"):
        labels.check_settings(name, {"lam": 1.0})


# --- plain values ---


def test_rows_become_plain_values_without_padding() -> None:
    batch = LabelBatch(
        promise=torch.tensor([[0.5, 0.25, 1.0], [0.5, 0.0, 0.0]]),
        progress=torch.tensor([[-0.25, 0.75], [-0.5, 0.0]]),
        promise_weight=torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]),
        progress_weight=torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
    )
    assert labels.to_step_labels(batch, torch.tensor([2, 1])) == [
        StepLabels(promise=(0.5, 0.25, 1.0), progress=(-0.25, 0.75), weight=(1.0, 1.0, 1.0)),
        StepLabels(promise=(0.5, 0.0), progress=(-0.5,), weight=(1.0, 1.0)),
    ]


def test_each_row_keeps_its_own_weights_and_targets() -> None:
    batch = LabelBatch(
        promise=torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 1.0], [0.25, 1.0, 0.0], [0.5, 0.5, 0.5]]),
        progress=torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.75, 0.0], [0.25, 0.0]]),
        promise_weight=torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]),
        progress_weight=torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]),
    )
    assert labels.to_step_labels(batch, torch.tensor([0, 2, 1, 2])) == [
        StepLabels(promise=(0.5,), progress=(), weight=(1.0,)),
        StepLabels(promise=(0.0, 0.5, 1.0), progress=(0.5, 0.5), weight=(0.0, 2.0, 1.0)),
        StepLabels(promise=(0.25, 1.0), progress=(), weight=(1.0, 1.0)),
        StepLabels(promise=(0.5, 0.5, 0.5), progress=(0.25, 0.0), weight=(1.0, 1.0, 1.0)),
    ]


@pytest.mark.parametrize("name", labels.available())
def test_plain_values_become_the_same_batch_again(name: str) -> None:
    batch = labels.load(name).label(VALUES, OUTCOMES, LENGTHS)
    again = labels.from_step_labels(labels.to_step_labels(batch, LENGTHS))
    assert torch.equal(again.promise, batch.promise)
    assert torch.equal(again.progress, batch.progress)
    assert torch.equal(again.promise_weight, batch.promise_weight)
    assert torch.equal(again.progress_weight, batch.progress_weight)


@pytest.mark.trap("missing target")
def test_trap_a_missing_progress_target_does_not_turn_into_a_target_of_zero() -> None:
    rows = labels.to_step_labels(returns.label(None, OUTCOMES, LENGTHS), LENGTHS)
    assert [row.progress for row in rows] == [(), ()]
    assert labels.from_step_labels(rows).progress_weight.eq(0).all()


def test_progress_weights_that_plain_values_cannot_hold_are_refused() -> None:
    batch = td_gae.label(VALUES, OUTCOMES, LENGTHS)
    batch.progress_weight[0, 1] = 0.0
    with pytest.raises(DataError, match="row 0 has the progress weights"):
        labels.to_step_labels(batch, LENGTHS)


def test_plain_values_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="row 0 has 3 promise targets, 2 weights and 2 progress targets"):
        labels.from_step_labels([StepLabels((1.0, 1.0, 1.0), (0.0, 0.0), (1.0, 1.0))])


def test_a_label_batch_refuses_shapes_that_do_not_belong_together() -> None:
    reads, steps = torch.zeros(2, 4), torch.zeros(2, 3)
    LabelBatch(reads, steps, reads, steps)
    with pytest.raises(ValueError, match=r"promise has shape \(2, 4\) and progress \(2, 4\)"):
        LabelBatch(reads, reads, reads, reads)
    with pytest.raises(ValueError, match="the weights have shapes"):
        LabelBatch(reads, steps, steps, steps)


# --- intermediate rewards ---


def rewarded(*rewards: float) -> Trajectory:
    return trajectory("." + "ac" * len(rewards), success=True, task="7", rewards=rewards)


def test_intermediate_rewards_are_refused_and_a_last_one_is_not() -> None:
    labels.check_no_intermediate_reward(rewarded(0.0, 0.0, 1.0))
    labels.check_no_intermediate_reward(rewarded())
    with pytest.raises(DataError, match=r"step 2 of .* task '7' has the intermediate reward 0\.5"):
        labels.check_no_intermediate_reward(rewarded(0.0, 0.5, 1.0))


# --- cold start ---


@pytest.mark.trap("cold start of labels")
def test_trap_cold_start_asks_no_step_to_rise_by_the_whole_outcome() -> None:
    # With v = 0 and λ = 1 every Â_t of TD-GAE equals r: three steps would each have to rise by 1.
    # The trainer therefore starts with `returns`: the same promise targets, and no progress targets.
    zeros, won, three = torch.zeros(1, 4), torch.ones(1), torch.tensor([3])
    td = td_gae.label(zeros, won, three, lam=1.0)
    cold = returns.label(zeros, won, three)
    assert td.progress.tolist() == [[1.0, 1.0, 1.0]]
    assert torch.equal(cold.promise, td.promise)
    assert cold.progress_weight.tolist() == [[0.0, 0.0, 0.0]]
