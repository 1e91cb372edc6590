"""TD residuals, GAE and TD-GAE labels against numbers worked out by hand and against identities."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlprm.errors import ConfigError
from rlprm.functional.masking import length_mask
from rlprm.functional.returns import (
    discounted_suffix_sums,
    gae,
    td_gae_labels,
    td_residuals,
    varying_suffix_sums,
)

LAMBDAS = (0.0, 0.3, 0.5, 0.95, 1.0)


def f64(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=atol)


def ragged_batch(seed: int, rows: int = 6, width: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(rows, width + 1, generator=generator, dtype=torch.float64)
    outcomes = torch.rand(rows, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    return values, outcomes, lengths


# --- by hand ---

# v_0 ... v_3 = .5 .6 .4 .9,  T = 3,  λ = .5;  v_3 must not matter.
VALUES = (0.5, 0.6, 0.4, 0.9)


def test_labels_of_a_success_by_hand() -> None:
    # r = 1:  δ = .6 - .5, .4 - .6, 1 - .4 = .1, -.2, .6
    #   Â_3 = .6,  Â_2 = -.2 + .5·.6 = .1,  Â_1 = .1 + .5·.1 = .15
    #   Q̂_3 = 1,  Q̂_2 = .1 + .6 = .7,  Q̂_1 = .15 + .5 = .65,  Q̂_0 = G_1 = .15 + .5 = .65
    labels = td_gae_labels(f64(VALUES), f64(1), torch.tensor([3]), lam=0.5)
    close(labels.progress, f64([0.15, 0.1, 0.6]))
    close(labels.promise, f64([0.65, 0.65, 0.7, 1.0]))


def test_labels_of_a_failure_by_hand() -> None:
    # r = 0:  δ = .1, -.2, -.4;  Â_3 = -.4,  Â_2 = -.2 - .2 = -.4,  Â_1 = .1 - .2 = -.1
    #   Q̂_3 = 0,  Q̂_2 = -.4 + .6 = .2,  Q̂_1 = -.1 + .5 = .4 = Q̂_0
    labels = td_gae_labels(f64(VALUES), f64(0), torch.tensor([3]), lam=0.5)
    close(labels.progress, f64([-0.1, -0.4, -0.4]))
    close(labels.promise, f64([0.4, 0.4, 0.2, 0.0]))


def test_labels_of_a_single_step_by_hand() -> None:
    # T = 1: δ_1 = Â_1 = r - v_0 = .75 - .5;  Q̂_1 = r;  Q̂_0 = Â_1 + v_0 = r
    labels = td_gae_labels(f64([0.5, 0.1, 7.0, 7.0]), f64(0.75), torch.tensor([1]), lam=0.5)
    close(labels.progress, f64([0.25, 0.0, 0.0]))
    close(labels.promise, f64([0.75, 0.75, 0.0, 0.0]))


def test_a_trajectory_without_steps_has_one_target() -> None:
    labels = td_gae_labels(f64([0.5, 7.0]), f64(0.25), torch.tensor([0]), lam=0.5)
    close(labels.progress, f64([0.0]))
    close(labels.promise, f64([0.25, 0.0]))


def test_gae_with_rewards_and_discount_by_hand() -> None:
    # γ = .5, λ = .5 (γλ = .25), r = 1, 0, 2, V = 4, 2, 8, terminated:
    #   δ_3 = 2 + 0 - 8 = -6,  δ_2 = 0 + .5·8 - 2 = 2,  δ_1 = 1 + .5·2 - 4 = -2
    #   A_3 = -6,  A_2 = 2 - 1.5 = .5,  A_1 = -2 + .125 = -1.875
    rewards, values, lengths = f64([1, 0, 2]), f64([4, 2, 8]), torch.tensor([3])
    close(td_residuals(rewards, values, f64(0), lengths, gamma=0.5), f64([-2, 2, -6]))
    close(gae(rewards, values, f64(0), lengths, gamma=0.5, lam=0.5), f64([-1.875, 0.5, -6]))


def test_truncation_is_bootstrapped_and_termination_is_not() -> None:
    # The same steps cut off before a state worth 4: δ_3 = 2 + .5·4 - 8 = -4, hence
    #   A_3 = -4,  A_2 = 2 - 1 = 1,  A_1 = -2 + .25 = -1.75
    rewards, values = f64([1, 0, 2], [1, 0, 2]), f64([4, 2, 8], [4, 2, 8])
    advantages = gae(rewards, values, f64(0, 4), torch.tensor([3, 3]), gamma=0.5, lam=0.5)
    close(advantages, f64([-1.875, 0.5, -6], [-1.75, 1, -4]))


def test_labels_of_states_and_actions_by_hand() -> None:
    # x_1, v_1, x_2, v_2, x_3 = .5, .6, .3, .4, .6 (v_3 must not matter), T = 3, r = 1, λ = .5:
    #   links:  v_1 - x_1 = .1,  x_2 - v_1 = -.3,  v_2 - x_2 = .1,  x_3 - v_2 = .2,  r - x_3 = .4
    chain, links = f64([0.5, 0.6, 0.3, 0.4, 0.6, 0.9]), torch.tensor([5])
    # λ a link:  Â = .4,  .2 + .2 = .4,  .1 + .2 = .3,  -.3 + .15 = -.15,  .1 - .075 = .025
    labels = td_gae_labels(chain, f64(1), links, lam=0.5)
    close(labels.progress, f64([0.025, -0.15, 0.3, 0.4, 0.4]))
    close(labels.promise, f64([0.525, 0.525, 0.45, 0.6, 0.8, 1.0]))
    # λ an action, behind its link:  Â = .4,  .2 + .4 = .6,  .1 + .3 = .4,  -.3 + .4 = .1,  .1 + .05 = .15
    labels = td_gae_labels(chain, f64(1), links, lam=0.5, links_per_lam=2)
    close(labels.progress, f64([0.15, 0.1, 0.4, 0.6, 0.4]))
    close(labels.promise, f64([0.65, 0.65, 0.7, 0.7, 1.0, 1.0]))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 31, 64, 100])
def test_suffix_sums_satisfy_their_recursion(width: int) -> None:
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    y = discounted_suffix_sums(x, 0.9)
    close(y, x + 0.9 * torch.cat([y[:, 1:], torch.zeros(3, 1)], dim=1))


def test_suffix_sums_with_a_factor_at_every_place_satisfy_their_recursion() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 37, generator=generator, dtype=torch.float64)
    factors = torch.rand(3, 37, generator=generator, dtype=torch.float64)
    factors[:, 5:9], factors[1, 20] = 1.0, 0.0
    y = varying_suffix_sums(x, factors)
    close(y, x + factors * torch.cat([y[:, 1:], torch.zeros(3, 1)], dim=1))
    close(varying_suffix_sums(x, torch.full_like(x, 0.9)), discounted_suffix_sums(x, 0.9))


# --- identities ---


def test_lambda_one_is_the_monte_carlo_return() -> None:
    values, outcomes, lengths = ragged_batch(0)
    labels = td_gae_labels(values, outcomes, lengths, lam=1.0)
    reads, steps = length_mask(lengths + 1, 10), length_mask(lengths, 9)
    close(labels.promise, torch.where(reads, outcomes[:, None], 0.0))
    close(labels.progress, torch.where(steps, outcomes[:, None] - values[:, :-1], 0.0))


def test_lambda_zero_teaches_nothing_but_the_last_step() -> None:
    values, outcomes, lengths = ragged_batch(1)
    promise = td_gae_labels(values, outcomes, lengths, lam=0.0).promise
    for row, length in enumerate(lengths.tolist()):
        close(promise[row, 1:length], values[row, 1:length])
        assert promise[row, length] == outcomes[row]


@pytest.mark.parametrize("lam", LAMBDAS)
def test_promise_target_is_the_td_lambda_return_with_its_error_scaled_by_lambda(lam: float) -> None:
    # Q̂_t - v_t = λ (G_{t+1} - v_t),  G_{t+1} = Â_{t+1} + v_t,  for t < T
    values, outcomes, lengths = ragged_batch(2)
    promise, progress = td_gae_labels(values, outcomes, lengths, lam=lam)
    for row, length in enumerate(lengths.tolist()):
        v, a = values[row], progress[row]
        for t in range(1, length):
            following_return = a[t] + v[t]  # column t holds Â_{t+1}
            close(promise[row, t] - v[t], lam * (following_return - v[t]))


def interleaved(values: Tensor, states: Tensor) -> Tensor:
    """x_1, v_1, ..., x_T, v_T from v_0 ... v_T and x_1 ... x_T."""
    return torch.stack([states, values[:, 1:]], dim=2).flatten(1)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_states_that_equal_the_values_before_leave_the_labels_of_the_actions_as_they_were(lam: float) -> None:
    values, outcomes, lengths = ragged_batch(4)
    alone = td_gae_labels(values, outcomes, lengths, lam=lam)
    chain, links = interleaved(values, values[:, :-1]), 2 * lengths - 1  # x_{t+1} = v_t: no luck
    both = td_gae_labels(chain, outcomes, links, lam=lam, links_per_lam=2)
    close(both.promise[:, 1::2], alone.promise[:, 1:])
    close(both.promise[:, 0], alone.promise[:, 0])
    close(both.progress[:, ::2], alone.progress)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_with_lambda_an_action_any_states_leave_the_promise_of_actions_and_lose_the_luck(lam: float) -> None:
    values, outcomes, lengths = ragged_batch(5)
    states = ragged_batch(6)[0][:, 1:]
    states[:, 0] = values[:, 0]  # x_1 = v_0: both are read at the end of the prompt
    alone = td_gae_labels(values, outcomes, lengths, lam=lam)
    both = td_gae_labels(interleaved(values, states), outcomes, 2 * lengths - 1, lam=lam, links_per_lam=2)
    close(both.promise[:, 1::2], alone.promise[:, 1:])
    luck_before = (states - values[:, :-1]).where(length_mask(lengths, 9), torch.tensor(0.0))
    close(both.progress[:, ::2], alone.progress - luck_before)
    # a state's target is its λ-return, which is what its action's value is trained on, too
    close(both.promise[:, 0::2], both.promise[:, 1::2])


@pytest.mark.parametrize(("links_per_lam", "decay"), [(1, 0.5**2), (2, 0.5)])
def test_an_outcome_counts_less_for_an_action_the_more_actions_lie_between(
    links_per_lam: int, decay: float
) -> None:
    # T = 4, a chain of 7 links. The difference between r = 1 and r = 0 is what the outcome counts.
    chain, links = f64([0.5] * 8), torch.tensor([7])
    won, lost = (
        td_gae_labels(chain, f64(r), links, lam=0.5, links_per_lam=links_per_lam).progress for r in (1, 0)
    )
    close((won - lost)[:, ::2], f64([decay**3, decay**2, decay, 1]))


def test_several_links_a_lambda_refuse_a_discount() -> None:
    row = f64([1, 0, 2])
    with pytest.raises(ValueError, match=r"links_per_lam 2 with gamma 0\.5"):
        gae(row, row, f64(0), torch.tensor([3]), gamma=0.5, lam=0.5, links_per_lam=2)


@pytest.mark.parametrize("lam", LAMBDAS)
def test_fresh_progress_error_is_the_promise_error(lam: float) -> None:
    # v_t - v_{t-1} - Â_t = v_t - Q̂_t  for t = 1 ... T: with fresh labels the progress term says nothing new
    values, outcomes, lengths = ragged_batch(3)
    promise, progress = td_gae_labels(values, outcomes, lengths, lam=lam)
    steps = length_mask(lengths, 9)
    close((values.diff(dim=1) - progress)[steps], (values - promise)[:, 1:][steps])


def test_residuals_telescope_to_outcome_minus_initial_value() -> None:
    values, outcomes, lengths = ragged_batch(4)
    residuals = td_residuals(torch.zeros_like(values[:, 1:]), values[:, :-1], outcomes, lengths, gamma=1.0)
    close(residuals.sum(dim=1), outcomes - values[:, 0])


def test_the_value_of_the_last_action_enters_nowhere() -> None:
    values, outcomes, lengths = ragged_batch(5)
    changed = values.clone()
    changed[torch.arange(len(lengths)), lengths] = 123.0
    for before, after in zip(
        td_gae_labels(values, outcomes, lengths, lam=0.9),
        td_gae_labels(changed, outcomes, lengths, lam=0.9),
        strict=True,
    ):
        assert torch.equal(before, after)


# A tree of actions with deterministic transitions, so that V(s_{t+1}) = Q(s_t, a_t): a node is the tuple
# of actions taken; it maps to (probability of action 1, or None where the episode ends; outcome there).
POLICY = {(): 0.3, (1,): 0.6, (0,): 0.5, (0, 0): 0.2, (0, 0, 1): 0.9}
OUTCOME = {
    (1, 1): 1.0,
    (1, 0): 0.0,
    (0, 1): 0.4,
    (0, 0, 0): 0.0,
    (0, 0, 1, 0): 1.0,
    (0, 0, 1, 1): 0.0,
}


def true_value(node: tuple[int, ...]) -> float:
    if node in OUTCOME:
        return OUTCOME[node]
    p = POLICY[node]
    return p * true_value((*node, 1)) + (1 - p) * true_value((*node, 0))


def probability(leaf: tuple[int, ...], given: tuple[int, ...]) -> float:
    product = 1.0
    for depth in range(len(given), len(leaf)):
        p = POLICY[leaf[:depth]]
        product *= p if leaf[depth] == 1 else 1 - p
    return product


def tree_batch() -> tuple[list[tuple[int, ...]], Tensor, Tensor, Tensor]:
    leaves = list(OUTCOME)
    width = max(len(leaf) for leaf in leaves)
    values = torch.full((len(leaves), width + 1), float("nan"), dtype=torch.float64)
    for row, leaf in enumerate(leaves):
        for t in range(len(leaf) + 1):
            values[row, t] = true_value(leaf[:t])
    return leaves, values, f64(*OUTCOME.values()), torch.tensor([len(leaf) for leaf in leaves])


def nodes() -> Iterator[tuple[int, ...]]:
    yield from POLICY
    yield from OUTCOME


@pytest.mark.parametrize("lam", LAMBDAS)
def test_at_the_true_values_expected_labels_are_the_true_promise_and_progress(lam: float) -> None:
    leaves, values, outcomes, lengths = tree_batch()
    promise, progress = td_gae_labels(values, outcomes, lengths, lam=lam)
    for node in nodes():
        below = [row for row, leaf in enumerate(leaves) if leaf[: len(node)] == node]
        weight = f64(*(probability(leaves[row], given=node) for row in below))
        close(weight.sum(), f64(1.0)[0])
        t = len(node)
        if node in POLICY:  # E[Â_{t+1} | s] = 0 under the policy
            close(weight @ progress[below, t], f64(0.0)[0])
        if t > 0:  # E[Â_t | s, a] = Q(s, a) - V(s)  and  E[Q̂_t | s, a] = Q(s, a)
            close(weight @ progress[below, t - 1], f64(true_value(node) - true_value(node[:-1]))[0])
            close(weight @ promise[below, t], f64(true_value(node))[0])


# --- padding ---

finite = st.floats(-2.0, 2.0, width=32)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[float]], list[float], float, float]:
    rows = draw(st.lists(st.lists(finite, min_size=1, max_size=12), min_size=1, max_size=5))
    outcomes = draw(st.lists(st.floats(0, 1), min_size=len(rows), max_size=len(rows)))
    lam = draw(st.one_of(st.sampled_from((0.0, 1.0)), st.floats(0.0, 1.0)))
    return rows, outcomes, lam, draw(st.sampled_from((0.0, float("nan"), float("inf"), -float("inf"))))


@settings(max_examples=100, deadline=None)
@given(batches())
def test_a_ragged_batch_equals_each_row_alone(
    batch: tuple[list[list[float]], list[float], float, float],
) -> None:
    rows, outcomes, lam, filler = batch
    width = max(2, *(len(row) for row in rows)) + 2
    values = torch.full((len(rows), width), filler, dtype=torch.float64)
    for index, row in enumerate(rows):
        values[index, : len(row)] = torch.tensor(row, dtype=torch.float64)
    lengths = torch.tensor([len(row) - 1 for row in rows])
    promise, progress = td_gae_labels(values, f64(*outcomes), lengths, lam=lam)
    for index, row in enumerate(rows):
        length = len(row) - 1
        alone = td_gae_labels(f64([*row, 0.0]), f64(outcomes[index]), torch.tensor([length]), lam=lam)
        close(promise[index, : length + 1], alone.promise[0, : length + 1])
        close(progress[index, :length], alone.progress[0, :length])
        assert promise[index, length + 1 :].eq(0).all()
        assert progress[index, length:].eq(0).all()
        assert promise[index, length] == outcomes[index]


def test_nothing_in_the_padding_reaches_gae_or_its_gradient() -> None:
    nan = float("nan")
    rewards = f64([1.0, 0.0, nan, nan], [0.0, 0.0, 0.0, 1.0])
    values = f64([0.5, 0.25, nan, float("inf")], [0.1, 0.2, 0.3, 0.4]).requires_grad_()
    advantages = gae(rewards, values, f64(0, 0), torch.tensor([2, 4]), gamma=1.0, lam=0.5)
    assert advantages.isfinite().all()
    advantages.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    # λ = ½, first row: A_1 + A_2 = δ_1 + 1.5 δ_2 = (V_2 - V_1) + 1.5 (0 - V_2) + rewards
    assert values.grad[0].tolist() == [-1.0, -0.5, 0.0, 0.0]
    assert values.grad[1].isfinite().all()


# --- traps that others fell into ---


@pytest.mark.trap("discount from the start")
def test_trap_discount_is_not_counted_from_the_start_of_the_episode() -> None:
    # The last three steps are the same; what came before must not change their credit.
    ending_rewards, ending_values = [0.0, 0.0, 1.0], [0.2, 0.5, 0.7]
    short = gae(f64(ending_rewards), f64(ending_values), f64(0), torch.tensor([3]), gamma=0.9, lam=0.8)
    long = gae(
        f64([0.0] * 20 + ending_rewards),
        f64([0.3] * 20 + ending_values),
        f64(0),
        torch.tensor([23]),
        gamma=0.9,
        lam=0.8,
    )
    close(long[0, 20:], short[0])
    # Credit for a reward k steps ahead is (γλ)^k, so the latest step gets the most.
    credit = gae(
        f64([0.0] * 4 + [1.0]), torch.zeros(1, 5).double(), f64(0), torch.tensor([5]), gamma=0.9, lam=0.8
    )
    close(credit, f64([0.72**k for k in (4, 3, 2, 1, 0)]))


@pytest.mark.trap("masked reward")
def test_trap_terminal_reward_lands_on_the_last_real_step() -> None:
    progress = td_gae_labels(torch.zeros(2, 6), torch.ones(2), torch.tensor([2, 5]), lam=0.0).progress
    assert progress.tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]]


@pytest.mark.trap("zero reward")
def test_trap_an_outcome_of_zero_is_an_outcome() -> None:
    # δ_T = 0 - v_{T-1}: the failure pushes down; nothing vanishes or falls back on v_T.
    promise, progress = td_gae_labels(f64([0.8, 0.8, 0.8]), f64(0), torch.tensor([2]), lam=1.0)
    close(progress, f64([-0.8, -0.8]))
    close(promise, f64([0.0, 0.0, 0.0]))


@pytest.mark.trap("labels under autocast")
def test_trap_autocast_does_not_lower_the_precision_of_labels() -> None:
    values, outcomes, lengths = ragged_batch(6)
    expected = td_gae_labels(values.float(), outcomes, lengths, lam=0.9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = td_gae_labels(values.float(), outcomes, lengths, lam=0.9)
    assert torch.equal(actual.promise, expected.promise)
    assert torch.equal(actual.progress, expected.progress)


def test_half_precision_values_are_labelled_in_float32() -> None:
    values, outcomes, lengths = ragged_batch(7)
    coarse = values.to(torch.bfloat16)
    labels = td_gae_labels(coarse, outcomes, lengths, lam=0.9)
    assert labels.promise.dtype == labels.progress.dtype == torch.float32
    close(labels.progress.double(), td_gae_labels(coarse.double(), outcomes, lengths, lam=0.9).progress, 1e-6)


def test_long_trajectories_stay_exact_in_float32() -> None:
    values = torch.rand(4, 4097, generator=torch.Generator().manual_seed(8))
    outcomes, lengths = torch.ones(4), torch.tensor([4096, 4095, 2048, 1])
    single = td_gae_labels(values, outcomes, lengths, lam=0.99).progress
    double = td_gae_labels(values.double(), outcomes, lengths, lam=0.99).progress
    close(single.double(), double, atol=1e-5)


def test_labels_carry_no_gradient() -> None:
    values = torch.rand(1, 4, requires_grad=True)
    labels = td_gae_labels(values, torch.ones(1), torch.tensor([3]), lam=0.9)
    assert not labels.promise.requires_grad
    assert not labels.progress.requires_grad


# --- what is refused ---


@pytest.mark.parametrize("lam", [-0.1, 1.1, float("nan"), "0.9", True])
def test_an_impossible_lambda_is_refused(lam: float) -> None:
    with pytest.raises(ConfigError, match="lam must"):
        td_gae_labels(torch.zeros(1, 3), torch.zeros(1), torch.tensor([2]), lam=lam)


@pytest.mark.parametrize(
    ("values", "outcomes", "lengths", "message"),
    [
        (torch.zeros(3), torch.zeros(1), torch.tensor([2]), r"values_BT1 has shape \(3,\)"),
        (torch.zeros(2, 1), torch.zeros(2), torch.tensor([0, 0]), r"values_BT1 has shape \(2, 1\)"),
        (torch.zeros(2, 3).long(), torch.zeros(2), torch.tensor([2, 2]), "values_BT1 has dtype torch.int64"),
        (torch.zeros(2, 3), torch.zeros(2, 1), torch.tensor([2, 2]), r"outcomes_B has shape \(2, 1\)"),
        (torch.zeros(2, 3), torch.zeros(2), torch.tensor([2]), r"lengths_B has shape \(1,\)"),
        (torch.zeros(2, 3), torch.zeros(2), torch.tensor([2.0, 1.0]), "lengths_B has dtype torch.float32"),
        (
            torch.zeros(2, 3),
            torch.zeros(2),
            torch.tensor([2, 3]),
            r"lengths_B spans 2 ... 3, expected .* 0 ... 2",
        ),
        (torch.zeros(2, 3), torch.zeros(2), torch.tensor([-1, 2]), "lengths_B spans -1"),
    ],
)
def test_a_wrong_shape_is_named(values: Tensor, outcomes: Tensor, lengths: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        td_gae_labels(values, outcomes, lengths, lam=0.9)
