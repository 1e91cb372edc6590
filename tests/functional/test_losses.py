"""Promise and progress loss: hand-computed values and gradients, padding, independence of the batch split."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.activation import activate
from rlprm.functional.losses import AgentPRMLoss, agent_prm_loss, progress_loss, promise_loss

NAN = float("nan")

# Values, targets and weights of one trajectory with T = 3 (labels as in test_returns, λ = .5, r = 1).
VALUES = torch.tensor([[0.5, 0.6, 0.4, 0.9]], dtype=torch.float64)
PROMISE = torch.tensor([[0.65, 0.65, 0.7, 1.0]], dtype=torch.float64)
PROGRESS = torch.tensor([[0.15, 0.1, 0.6]], dtype=torch.float64)
READS, STEPS = torch.ones(1, 4), torch.ones(1, 3)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(loss, leaf)
    return result


def close(actual: Tensor, expected: list[list[float]] | float, atol: float = 1e-12) -> None:
    torch.testing.assert_close(
        actual.double(), torch.tensor(expected).double(), rtol=0.0, atol=max(atol, 1e-7)
    )


def test_promise_loss_and_gradient_by_hand() -> None:
    # errors v - Q̂ = -.15, -.05, -.3, -.1;  ½ Σ e² = ½ (.0225 + .0025 + .09 + .01) = .0625;  gradient e
    values = VALUES.clone().requires_grad_()
    loss = promise_loss(values, PROMISE, READS)
    close(loss, 0.0625)
    close(gradient(loss, values), [[-0.15, -0.05, -0.3, -0.1]])


def test_progress_loss_and_gradient_by_hand() -> None:
    # e_t = v_t - v_{t-1} - Â_t = -.05, -.3, -.1;  Σ e² = .0025 + .09 + .01 = .1025
    # ∂/∂v_t = 2 e_t - 2 e_{t+1}:  .1,  -.1 + .6 = .5,  -.6 + .2 = -.4,  -.2
    values = VALUES.clone().requires_grad_()
    loss = progress_loss(values, PROGRESS, STEPS)
    close(loss, 0.1025)
    close(gradient(loss, values), [[0.1, 0.5, -0.4, -0.2]])


def test_total_loss_and_gradient_by_hand() -> None:
    # β = 2, 3 steps:  (.0625 + 2·.1025) / 3;  gradient (e + 2·progress gradient) / 3
    values = VALUES.clone().requires_grad_()
    loss = agent_prm_loss(values, PROMISE, PROGRESS, READS, STEPS, num_links=3, beta=2.0)
    close(loss.total, 0.2675 / 3)
    close(loss.promise, 0.0625 / 3)
    close(loss.progress, 0.1025 / 3)
    close(gradient(loss.total, values), [[0.05 / 3, 0.95 / 3, -1.1 / 3, -0.5 / 3]])


def test_beta_zero_leaves_the_promise_loss_and_still_reports_progress() -> None:
    values = VALUES.clone().requires_grad_()
    loss = agent_prm_loss(values, PROMISE, PROGRESS, READS, STEPS, num_links=3, beta=0.0)
    close(gradient(loss.total, values), [[-0.05, -0.05 / 3, -0.1, -0.1 / 3]])
    close(loss.progress, 0.1025 / 3)


def test_weights_scale_their_terms() -> None:
    # promise: ½ (2·.0025 + 3·.01) = .0175;  progress: 4·.0025 + .5·.01 = .015
    close(promise_loss(VALUES, PROMISE, torch.tensor([[0.0, 2.0, 0.0, 3.0]])), 0.0175)
    close(progress_loss(VALUES, PROGRESS, torch.tensor([[4.0, 0.0, 0.5]])), 0.015)


def test_cross_entropy_and_gradient_by_hand() -> None:
    # z = 0, v = ½, q = ¼: ln 2 - H(¼) = .693147 - .562335 = .130812;  ∂/∂z = v - q = ¼
    # z = ln 3, v = ¾, q = ¾: a perfect fit costs 0 and pulls nowhere
    logits = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    loss = promise_loss(logits, torch.tensor([[0.25, 0.75]]), torch.ones(1, 2), kind="bce")
    assert loss.item() == pytest.approx(0.130812, abs=1e-6)
    close(gradient(loss, logits), [[0.25, 0.0]], atol=1e-6)


def test_cross_entropy_clips_targets_that_left_the_unit_interval() -> None:
    # q = 1.2 and -.2 count as 1 and 0: each costs ln 2 at z = 0, with gradients ½ - 1 and ½ - 0
    logits = torch.zeros(1, 2, requires_grad=True)
    loss = promise_loss(logits, torch.tensor([[1.2, -0.2]]), torch.ones(1, 2), kind="bce")
    assert loss.item() == pytest.approx(2 * math.log(2.0), abs=1e-6)
    close(gradient(loss, logits), [[-0.5, 0.5]])


def test_cross_entropy_is_finite_for_extreme_logits() -> None:
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = promise_loss(logits, torch.tensor([[1.0, 0.0]]), torch.ones(1, 2), kind="bce")
    assert loss.item() == pytest.approx(400.0)
    close(gradient(loss, logits), [[-1.0, 1.0]])


def test_with_bce_progress_compares_probabilities() -> None:
    # z = 0, ln 3: v = ½, ¾, rise ¼; target ¼ for the rise costs nothing
    logits = torch.tensor([[0.0, math.log(3.0)]])
    loss = agent_prm_loss(
        logits,
        torch.tensor([[0.5, 0.75]]),
        torch.tensor([[0.25]]),
        torch.ones(1, 2),
        torch.ones(1, 1),
        num_links=1,
        beta=1.0,
        kind="bce",
        activation="sigmoid",
    )
    close(loss.promise, 0.0, atol=1e-6)
    close(loss.progress, 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "activation"), [("mse", "identity"), ("mse", "sigmoid"), ("bce", "sigmoid")]
)
@pytest.mark.parametrize("junk", [NAN, float("inf"), -float("inf"), 1e38])
def test_padding_neither_costs_nor_pulls(kind: str, activation: str, junk: float) -> None:
    def loss_of(logits: Tensor, filler: float) -> AgentPRMLoss:
        extra = torch.full((1, 2), filler)
        return agent_prm_loss(
            logits,
            torch.cat([PROMISE.float(), extra], dim=1),
            torch.cat([PROGRESS.float(), extra], dim=1),
            torch.cat([READS, torch.zeros(1, 2)], dim=1),
            torch.cat([STEPS, torch.zeros(1, 2)], dim=1),
            num_links=3,
            beta=1.0,
            kind=kind,
            activation=activation,
        )

    clean = torch.cat([VALUES.float(), torch.zeros(1, 2)], dim=1).requires_grad_()
    dirty = torch.cat([VALUES.float(), torch.full((1, 2), junk)], dim=1).requires_grad_()
    expected, actual = loss_of(clean, 0.0), loss_of(dirty, junk)
    assert torch.equal(actual.total, expected.total)
    found = gradient(actual.total, dirty)
    assert torch.equal(found, gradient(expected.total, clean))
    assert found[0, 4:].tolist() == [0.0, 0.0]
    assert found[0, :4].ne(0).all()


def test_low_level_sums_ignore_junk_where_the_weight_is_zero() -> None:
    values = torch.tensor([[0.5, 0.6, NAN]], requires_grad=True)
    targets, weights = torch.tensor([[0.65, NAN, NAN]]), torch.tensor([[1.0, 0.0, 0.0]])
    close(gradient(promise_loss(values, targets, weights), values), [[-0.15, 0.0, 0.0]])
    loss = progress_loss(values, torch.tensor([[0.15, NAN]]), torch.tensor([[1.0, 0.0]]))
    close(gradient(loss, values), [[0.1, -0.1, 0.0]])


def test_a_read_without_promise_target_still_serves_progress() -> None:
    loss = agent_prm_loss(
        VALUES, PROMISE, PROGRESS, torch.tensor([[0.0, 0.0, 0.0, 1.0]]), STEPS, num_links=1, beta=1.0
    )
    close(loss.promise, 0.005)  # ½·.01
    close(loss.progress, 0.1025)


def random_batch(rows: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits, promise = (torch.randn(rows, width + 1, generator=generator).double() for _ in range(2))
    progress = torch.randn(rows, width, generator=generator).double()
    lengths = torch.randint(1, width + 1, (rows, 1), generator=generator)
    reads, steps = torch.arange(width + 1) <= lengths, torch.arange(width) < lengths
    return [logits, promise, progress, reads.double(), steps.double()]


@pytest.mark.parametrize(
    ("kind", "activation"), [("mse", "identity"), ("mse", "sigmoid"), ("bce", "sigmoid")]
)
def test_a_batch_of_eight_equals_two_of_four(kind: str, activation: str) -> None:
    batch = random_batch(8, 6)
    num_links = batch[-1].sum()

    def total(tensors: list[Tensor]) -> Tensor:
        return agent_prm_loss(*tensors, num_links=num_links, beta=0.7, kind=kind, activation=activation).total

    halves = total([tensor[:4] for tensor in batch]) + total([tensor[4:] for tensor in batch])
    torch.testing.assert_close(total(batch), halves)
    assert halves > 0


@pytest.mark.trap("mean of means")
def test_trap_means_run_over_steps_and_not_over_rows() -> None:
    # One long bad row beside one short good one. Over steps: (4·½·1 + 0) / 5 = .4;
    # per row and then averaged: (½ + 0) / 2 = .25
    logits = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    weights = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0, 0.0]])
    zeros = torch.zeros(2, 4)
    loss = agent_prm_loss(logits, torch.zeros(2, 5), zeros, weights, zeros, num_links=weights.sum(), beta=1.0)
    close(loss.total, 0.4)


def test_half_precision_logits_are_compared_in_float32() -> None:
    loss = promise_loss(
        torch.full((1, 4), 0.5).to(torch.bfloat16), torch.full((1, 4), 0.501), torch.ones(1, 4)
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(4 * 0.5e-6, rel=1e-3)
    chain = torch.tensor([[0.0, 0.5]], dtype=torch.bfloat16)
    assert progress_loss(chain, torch.tensor([[0.501]]), torch.ones(1, 1)).item() == pytest.approx(
        1e-6, rel=1e-3
    )


def test_activation_is_chosen_by_name() -> None:
    logits = torch.tensor([0.0, math.log(3.0)])
    assert torch.equal(activate(logits, "identity"), logits)
    torch.testing.assert_close(activate(logits, "sigmoid"), torch.tensor([0.5, 0.75]))
    with pytest.raises(ConfigError, match="unknown activation 'tanh'; known: identity, sigmoid"):
        activate(logits, "tanh")


def test_impossible_losses_are_refused() -> None:
    arguments = (VALUES, PROMISE, PROGRESS, READS, STEPS)
    with pytest.raises(ConfigError, match="'bce' needs the activation 'sigmoid', got 'identity'"):
        agent_prm_loss(*arguments, num_links=3, beta=1.0, kind="bce", activation="identity")
    with pytest.raises(ConfigError, match="unknown promise loss 'huber'; known: mse, bce"):
        agent_prm_loss(*arguments, num_links=3, beta=1.0, kind="huber")
    with pytest.raises(ConfigError, match="unknown promise loss 'huber'"):
        promise_loss(VALUES, PROMISE, READS, kind="huber")
    with pytest.raises(ValueError, match=r"targets_BT has shape \(1, 4\), expected \(1, 3\)"):
        progress_loss(VALUES, PROMISE, STEPS)
    with pytest.raises(ValueError, match=r"weights_BT1 has shape \(1, 3\), expected \(1, 4\)"):
        promise_loss(VALUES, PROMISE, STEPS)
