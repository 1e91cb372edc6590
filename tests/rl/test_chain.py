"""A chain with a known answer: what each reward makes of its optimum, by exact policy gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlprm.functional.ppo import policy_loss
from rlprm.functional.returns import discounted_suffix_sums
from rlprm.rl import advantages, rewards
from rlprm.rl.advantages import AdvantageInputs
from tests.toys import chain

GAMMA = 0.9
EPISODES = chain.all_episodes()


def to_go(reward: str, gamma: float = GAMMA) -> Tensor:
    """The discounted return from each step of each episode, (B, T)."""
    e = EPISODES
    paid = rewards.load(reward).step_rewards(e.values_BT1, e.outcomes_B, e.lengths_B, gamma=gamma)
    return discounted_suffix_sums(paid.total, gamma)


def climb(reward: str, steps: int = 150) -> Tensor:
    """Follow the exact gradient of the expected return; return the policy's logits."""
    returns_B = to_go(reward)[:, 0]
    logits = chain.policy_logits().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.2)
    for _ in range(steps):
        loss = -(EPISODES.chances(logits) * returns_B).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return logits.detach()


def chance_of_success_in(steps: int, logits: Tensor) -> float:
    """How often the policy finishes in the last cell with exactly that many steps."""
    wanted_B = (EPISODES.outcomes_B == 1) & (EPISODES.lengths_B == steps)
    return float(EPISODES.chances(logits)[wanted_B].sum())


def best_actions(reward: str) -> dict[int, set[int]]:
    """The optimal actions of every state: those that begin the best of all that can follow."""
    returns_BT, best = to_go(reward), {}
    for state in range(3 * chain.HORIZON):
        here_BT = (EPISODES.states_BT == state) & EPISODES.exists
        if here_BT.any():
            top = returns_BT[here_BT].max()
            winners = EPISODES.actions_BT[here_BT & (returns_BT > top - 1e-9)]
            best[state] = set(winners.tolist())
    return best


def test_the_toy_is_complete() -> None:
    logits = torch.randn(15, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(EPISODES.chances(logits).sum()) == pytest.approx(1.0)
    assert int(EPISODES.lengths_B.max()) == chain.HORIZON
    assert EPISODES.outcomes_B.sum() > 1


@pytest.mark.parametrize("reward", ["outcome", "progress"])
def test_outcome_and_progress_lead_to_the_shortest_success(reward: str) -> None:
    assert chance_of_success_in(3, chain.policy_logits()) < 0.05
    assert chance_of_success_in(3, climb(reward)) > 0.95


def test_the_optimal_actions_under_progress_are_those_under_outcome_in_every_state() -> None:
    assert best_actions("progress") == best_actions("outcome")


@pytest.mark.trap("farmed reward")
def test_trap_promise_is_hacked_by_staying_where_it_is_promising() -> None:
    assert chance_of_success_in(chain.HORIZON, climb("promise")) > 0.95  # three would do
    assert best_actions("promise") != best_actions("outcome")
    returns_B = to_go("promise")[:, 0]
    succeeded = EPISODES.outcomes_B == 1
    shortest = returns_B[succeeded & (EPISODES.lengths_B == 3)].max()
    # Even without ever finishing, waiting at the goal pays more than the shortest success.
    assert returns_B[~succeeded & (EPISODES.lengths_B == chain.HORIZON)].max() > shortest


def test_the_gradient_under_progress_is_that_under_outcome() -> None:
    logits = torch.randn(15, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = []
    for reward in ("outcome", "progress", "promise"):
        leaf = logits.clone().requires_grad_()
        objective = (EPISODES.chances(leaf) * to_go(reward)[:, 0]).sum()
        gradients.append(torch.autograd.grad(objective, leaf)[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert (gradients[2] - gradients[0]).abs().max() > 0.05


def test_the_gradient_of_the_first_state_by_hand() -> None:
    # A policy that is certain of everything but its first action, which is uniform: right leads on
    # to right and finish, wait then does the same a step later, finish fails at once.
    logits = torch.full((15, 3), -40.0, dtype=torch.float64)
    for taken in range(chain.HORIZON):
        for cell in range(3):
            logits[3 * taken + cell, chain.FINISH if cell == chain.GOAL else chain.RIGHT] = 40.0
    logits[0] = 0.0
    leaf = logits.clone().requires_grad_()
    objective = (EPISODES.chances(leaf) * to_go("progress")[:, 0]).sum()
    (gradient,) = torch.autograd.grad(objective, leaf)
    # Returns under outcome: γ², γ³, 0 = .81, .729, 0, mean .513; a constant (-c v_0) less under progress.
    # ∂J/∂z_a = π_a (G_a - J):  (.297, .216, -.513) / 3
    expected = torch.tensor([0.099, 0.072, -0.171], dtype=torch.float64)
    torch.testing.assert_close(gradient[0], expected)


@pytest.mark.parametrize("reward", ["outcome", "progress", "promise"])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_the_expected_ppo_gradient_with_the_true_critic_is_the_policy_gradient(
    reward: str, lam: float
) -> None:
    # The sum over all episodes of chance x PPO gradient, at ratio 1 and γ = 1, for any λ.
    e = EPISODES
    logits = torch.randn(15, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    returns_BT = to_go(reward, gamma=1.0)
    chances_B = e.chances(leaf)
    (expected,) = torch.autograd.grad((chances_B * returns_BT[:, 0]).sum(), leaf)

    chances_B = chances_B.detach()
    reach_BT = chances_B.unsqueeze(1).expand_as(returns_BT).where(e.exists, 0.0)
    sums_S = torch.zeros(15, dtype=torch.float64)
    mass_S = sums_S.scatter_add(0, e.states_BT.flatten(), reach_BT.flatten())
    sums_S = sums_S.scatter_add(0, e.states_BT.flatten(), (reach_BT * returns_BT).flatten())
    values_BT = (sums_S / mass_S.clamp(min=1e-30))[e.states_BT].where(e.exists, 0.0)

    paid = rewards.load(reward).step_rewards(e.values_BT1, e.outcomes_B, e.lengths_B, gamma=1.0)
    inputs = AdvantageInputs(paid.total, e.lengths_B, values_BT=values_BT)
    credit = advantages.load("turn_gae").estimate(inputs, gamma=1.0, lam=lam)
    logprobs = e.logprobs(leaf)
    weights_BT = chances_B.unsqueeze(1).expand_as(logprobs)
    loss = policy_loss(
        logprobs, logprobs.detach(), credit.advantages, credit.mask, denominator=1, weights=weights_BT
    ).loss
    torch.testing.assert_close(-torch.autograd.grad(loss, leaf)[0], expected)
