"""Each estimator by hand, what they have in common, and the traps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError, DataError
from rlprm.functional.masking import length_mask
from rlprm.functional.tokens import TokenLayout, token_layout
from rlprm.labels import td_gae as td_gae_labels
from rlprm.rl import advantages
from rlprm.rl.advantages import AdvantageInputs, Advantages


def f64(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=1e-9)


def run(name: str, batch: AdvantageInputs, *, gamma: float = 1.0, **settings: float) -> Advantages:
    return advantages.load(name).estimate(batch, gamma=gamma, **settings)


def ragged(seed: int) -> AdvantageInputs:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return AdvantageInputs(
        rewards_BT=numbers(6, 5),
        lengths_B=torch.randint(1, 6, (6,), generator=generator),
        values_BT=numbers(6, 5),
        prm_values_BT1=numbers(6, 6),
        prm_states_BT=numbers(6, 5),
        groups_B=torch.tensor([0, 1, 0, 1, 0, 2]),
    )


# --- turn_gae ---

# γ = ½, λ = ½, r = 1, 0, 2, V = 4, 2, 8; worked out in tests/functional/test_returns.py
TURNS = AdvantageInputs(f64([1, 0, 2]), torch.tensor([3]), values_BT=f64([4, 2, 8]))


def test_turn_gae_by_hand() -> None:
    found = run("turn_gae", TURNS, gamma=0.5, lam=0.5)
    close(found.advantages, f64([-1.875, 0.5, -6]))
    close(found.returns, f64([2.125, 2.5, 2]))
    cut_off = replace(TURNS, bootstrapped_B=torch.tensor([True]), end_values_B=f64(4).squeeze(0).expand(1))
    close(run("turn_gae", cut_off, gamma=0.5, lam=0.5).advantages, f64([-1.75, 1, -4]))


def test_turn_gae_at_the_ends_of_lambda() -> None:
    batch = ragged(0)
    assert batch.values_BT is not None
    steps = length_mask(batch.lengths_B, 5)
    rewards = batch.rewards_BT.where(steps, 0.0)
    returns = torch.zeros(6, 6, dtype=torch.float64)
    for t in reversed(range(5)):
        returns[:, t] = rewards[:, t] + 0.9 * returns[:, t + 1]
    monte_carlo = run("turn_gae", batch, gamma=0.9, lam=1.0)
    close(monte_carlo.advantages, (returns[:, :5] - batch.values_BT).where(steps, 0.0))
    close(monte_carlo.returns, returns[:, :5].where(steps, 0.0))
    following = torch.cat([batch.values_BT.where(steps, 0.0)[:, 1:], torch.zeros(6, 1)], dim=1)
    td = (rewards + 0.9 * following - batch.values_BT).where(steps, 0.0)
    close(run("turn_gae", batch, gamma=0.9, lam=0.0).advantages, td)


@pytest.mark.trap("discount from the start")
def test_trap_the_discount_is_not_counted_from_the_start_of_the_episode() -> None:
    # The same last three steps after 0 and after 20 others are credited alike, by turns and by tokens.
    def ending(before: int, name: str) -> Tensor:
        rewards, values = f64([0.1] * before + [0, 0, 1]), f64([0.3] * before + [0.2, 0.5, 0.7])
        steps = before + 3
        positions = 2 * torch.arange(steps).unsqueeze(0)
        mask = torch.arange(2 * steps).unsqueeze(0) % 2 == 0
        batch = AdvantageInputs(
            rewards,
            torch.tensor([steps]),
            values_BT=values,
            values_BL=values.repeat_interleave(2, dim=1),
            layout=token_layout(mask, positions, positions, torch.tensor([steps])),
        )
        found = run(name, batch, gamma=0.9, lam=0.8)
        return found.advantages[found.mask][-3:]

    for name in ("turn_gae", "token_gae"):
        torch.testing.assert_close(ending(0, name), ending(20, name))


# --- token_gae ---


def tokens_of(batch: AdvantageInputs, sampled: int, between: int) -> tuple[AdvantageInputs, Tensor]:
    """Give every step some sampled tokens, with observation tokens in between; all know the step's value."""
    assert batch.values_BT is not None
    width = batch.rewards_BT.shape[1]
    starts = (sampled + between) * torch.arange(width).expand(len(batch.lengths_B), width) + between
    position = torch.arange((sampled + between) * width) - between
    in_step = (position >= 0) & (position < (sampled + between) * batch.lengths_B.unsqueeze(1))
    mask = in_step & (position % (sampled + between) < sampled)
    layout = token_layout(mask, starts, starts + sampled - 1, batch.lengths_B)
    values = batch.values_BT.gather(1, layout.step_BL.clamp(min=0))
    junk = torch.full_like(values, 1e6)  # what a critic says of tokens nobody chose
    return replace(batch, values_BL=values.where(layout.sampled, junk), layout=layout), mask


@pytest.mark.parametrize("between", [0, 1, 7])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.7), (1.0, 0.0)])
def test_token_gae_with_one_token_per_step_is_turn_gae(between: int, gamma: float, lam: float) -> None:
    ends = {"bootstrapped_B": torch.tensor([True, False] * 3), "end_values_B": ragged(9).rewards_BT[:, 0]}
    batch, mask = tokens_of(replace(ragged(1), **ends), 1, between)
    by_token, by_turn = (
        run("token_gae", batch, gamma=gamma, lam=lam),
        run("turn_gae", batch, gamma=gamma, lam=lam),
    )
    close(by_token.advantages[mask], by_turn.advantages[by_turn.mask])
    assert by_token.returns is not None
    assert by_turn.returns is not None
    close(by_token.returns[mask], by_turn.returns[by_turn.mask])


def test_token_gae_by_hand() -> None:
    # Tokens: prompt | a b (forced) | observation | c.   r = 1, 2 on b and c; V = .5, .25, 1 at a, b, c.
    # γ = ½ between steps, λ = ½:
    #   δ_c = 2 - 1 = 1;            A_c = 1
    #   δ_b = 1 + ½·1 - .25 = 1.25; A_b = 1.25 + ½·½·1 = 1.5
    #   δ_a = .25 - .5 = -.25;      A_a = -.25 + ½·1.5 = .5   (no discount inside a message)
    nan = float("nan")
    batch = AdvantageInputs(
        f64([1, 2]),
        torch.tensor([2]),
        values_BL=f64([nan, 0.5, 0.25, nan, nan, 1, nan]),
        layout=token_layout(
            torch.tensor([[0, 1, 1, 0, 0, 1, 0]]),
            torch.tensor([[1, 5]]),
            torch.tensor([[3, 5]]),
            torch.tensor([2]),
        ),
    )
    found = run("token_gae", batch, gamma=0.5, lam=0.5)
    close(found.advantages, f64([0, 0.5, 1.5, 0, 0, 1, 0]))
    close(found.returns, f64([0, 1.0, 1.75, 0, 0, 2, 0]))
    # token_lam 1: A_a = -.25 + 1.5
    close(
        run("token_gae", batch, gamma=0.5, lam=0.5, token_lam=1.0).advantages, f64([0, 1.25, 1.5, 0, 0, 1, 0])
    )


@pytest.mark.trap("observations in GAE")
def test_trap_observation_tokens_are_no_time_steps() -> None:
    # However long the observations, and whatever a critic says of their tokens, λ < 1 decays the same.
    short, mask = tokens_of(ragged(2), 3, 1)
    long, longer_mask = tokens_of(ragged(2), 3, 50)
    a = run("token_gae", short, gamma=0.9, lam=0.7).advantages[mask]
    b = run("token_gae", long, gamma=0.9, lam=0.7).advantages[longer_mask]
    torch.testing.assert_close(a, b)


def test_a_message_is_not_discounted_for_its_length() -> None:
    # One step with reward 1 and a critic that knows nothing: with λ = 1 every token is credited fully.
    for tokens in (1, 2, 30):
        batch, mask = tokens_of(AdvantageInputs(f64([1]), torch.tensor([1]), values_BT=f64([0])), tokens, 1)
        found = run("token_gae", batch, gamma=0.5, lam=1.0).advantages[mask]
        assert found.tolist() == [1.0] * tokens


@pytest.mark.trap("masked reward")
def test_trap_the_terminal_reward_sits_on_a_token_that_was_sampled() -> None:
    # The episode's last token was forced (mask 0); the reward still reaches every sampled token.
    layout = token_layout(
        torch.tensor([[0, 1, 1, 0]]), torch.tensor([[1]]), torch.tensor([[3]]), torch.tensor([1])
    )
    batch = AdvantageInputs(f64([1]), torch.tensor([1]), values_BL=torch.zeros(1, 4).double(), layout=layout)
    close(run("token_gae", batch, lam=1.0).advantages, f64([0, 1, 1, 0]))


@pytest.mark.trap("zero reward")
def test_trap_a_reward_of_zero_does_not_make_the_turn_vanish() -> None:
    # A failure (all rewards 0) where the critic expected success: every step and token is blamed.
    batch, mask = tokens_of(
        AdvantageInputs(torch.zeros(1, 3).double(), torch.tensor([3]), values_BT=f64([0.8, 0.8, 0.8])), 2, 1
    )
    assert run("turn_gae", batch, lam=1.0).advantages.lt(-0.5).all()
    assert run("token_gae", batch, lam=1.0).advantages[mask].lt(-0.5).all()
    assert run("turn_gae", batch).mask.all()


# --- group and leave_one_out ---


def episodes(returns: list[float], groups: list[int]) -> AdvantageInputs:
    rewards = torch.zeros(len(returns), 3, dtype=torch.float64)
    rewards[:, 1] = torch.tensor(returns, dtype=torch.float64)
    return AdvantageInputs(rewards, torch.full((len(returns),), 2), groups_B=torch.tensor(groups))


def test_group_by_hand() -> None:
    # task 3: 1, 0, 0.5 -> mean .5;  task 1: 1, 1 -> equal;  task 8: alone
    batch = episodes([1, 1, 0, 0.5, 1, 0.3], [3, 1, 3, 3, 1, 8])
    found = run("group", batch)
    close(found.advantages[:, 0], f64(0.5, 0, -0.5, 0, 0, 0).squeeze())
    close(found.advantages[:, 1], found.advantages[:, 0])
    assert found.advantages[:, 2].eq(0).all()
    assert found.returns is None
    spread = (0.5 / 3) ** 0.5 + 1e-4
    close(
        run("group", batch, divide_by_std=True).advantages[:, 0],
        f64(0.5 / spread, 0, -0.5 / spread, 0, 0, 0).squeeze(),
    )


def test_the_return_of_an_episode_is_discounted_once() -> None:
    # rewards 0, 1 -> γ; against a group mate with nothing
    found = run("group", episodes([1, 0], [0, 0]), gamma=0.5)
    close(found.advantages, f64([0.25, 0.25, 0], [-0.25, -0.25, 0]))


def test_leave_one_out_by_hand() -> None:
    # 1 against (0 + .5)/2, 0 against .75, .5 against .5
    found = run("leave_one_out", episodes([1, 0, 0.5, 0.9], [0, 0, 0, 1]))
    close(found.advantages[:, 0], f64(0.75, -0.75, 0, 0).squeeze())


def test_leave_one_out_is_the_group_advantage_times_n_over_n_minus_one() -> None:
    batch = ragged(3)
    size = torch.tensor([3, 2, 3, 2, 3, 1]).unsqueeze(1)
    factor = (size / (size - 1).clamp(min=1)).double()
    close(run("leave_one_out", batch).advantages, factor * run("group", batch).advantages)


@pytest.mark.parametrize("name", ["group", "leave_one_out"])
def test_an_episode_without_steps_is_nobodys_baseline(name: str) -> None:
    batch = episodes([1, 0, 0.7], [0, 0, 0])
    without = replace(batch, lengths_B=torch.tensor([2, 2, 0]))
    close(run(name, without).advantages[:2], run(name, episodes([1, 0], [0, 0])).advantages)


@pytest.mark.parametrize("name", ["group", "leave_one_out"])
@pytest.mark.parametrize("value", [0.1, 1.0, 0.0])
def test_equal_returns_teach_nothing_at_all(name: str, value: float) -> None:
    settings = {"divide_by_std": True} if name == "group" else {}
    batch = replace(episodes([value] * 3, [0] * 3), rewards_BT=torch.full((3, 3), value, dtype=torch.float32))
    assert run(name, batch, **settings).advantages.eq(0).all()


def test_returns_that_differ_by_rounding_are_not_blown_up() -> None:
    batch = episodes([1.0, 1.0 + 1e-7, 1.0 - 1e-7], [0, 0, 0])
    assert run("group", batch, divide_by_std=True).advantages.abs().max() < 0.01


# --- gigpo ---

# γ = ½; episode a: r = 0, 1 from the observations 7 and 8; b: r = 0, 0, 0 from 7, 9 and 8; c: another task.
ANCHORED = AdvantageInputs(
    f64([0, 1, 99], [0, 0, 0], [4, 99, 99]),
    torch.tensor([2, 3, 1]),
    groups_B=torch.tensor([0, 0, 1]),
    anchors_BT=torch.tensor([[7, 8, 8], [7, 9, 8], [3, 3, 3]]),
)


def test_gigpo_by_hand() -> None:
    # G = ½, 0: ±¼.   R = ½, 1 and 0, 0, 0.   Anchor 7: ½ and 0, ±¼; anchor 8: 1 and 0, ±½; anchor 9: alone.
    found = run("gigpo", ANCHORED, gamma=0.5, step_weight=0.5)
    close(found.advantages, f64([0.375, 0.5, 0], [-0.375, -0.25, -0.5], [0, 0, 0]))
    assert found.returns is None
    divided = run("gigpo", ANCHORED, gamma=0.5, divide_by_std=True)
    a, b, c = 0.25 / 0.2501, 0.5 / 0.5001, 0.0
    close(divided.advantages, f64([2 * a, a + b, c], [-2 * a, -a, -a - b], [0, 0, 0]))


@pytest.mark.parametrize("divide", [False, True])
def test_gigpo_without_weight_or_without_shared_observations_is_group(divide: bool) -> None:
    batch = replace(ragged(4), anchors_BT=torch.zeros(6, 5, dtype=torch.long))
    wanted = run("group", batch, gamma=0.9, divide_by_std=divide).advantages
    close(run("gigpo", batch, gamma=0.9, step_weight=0.0, divide_by_std=divide).advantages, wanted)
    apart = replace(batch, anchors_BT=torch.arange(30).view(6, 5))
    close(run("gigpo", apart, gamma=0.9, step_weight=3.0, divide_by_std=divide).advantages, wanted)


def test_gigpo_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"step_weight must be 0 or more, got -1"):
        run("gigpo", ANCHORED, step_weight=-1.0)
    with pytest.raises(ValueError, match=r"anchors_BT has shape \(3, 2\), expected \(3, 3\)"):
        run("gigpo", replace(ANCHORED, anchors_BT=torch.zeros(3, 2, dtype=torch.long)))


# --- prm_critic ---


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_prm_critic_on_outcomes_is_the_progress_label_of_td_gae(lam: float) -> None:
    batch = ragged(4)
    assert batch.prm_values_BT1 is not None
    outcomes = torch.rand(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    is_last = torch.arange(5) == (batch.lengths_B - 1).unsqueeze(1)
    rewarded = replace(batch, rewards_BT=outcomes.unsqueeze(1).where(is_last, 0.0), prm_states_BT=None)
    labels = td_gae_labels.label(batch.prm_values_BT1, outcomes, batch.lengths_B, lam=lam)
    close(run("prm_critic", rewarded, lam=lam).advantages, labels.progress)


def test_prm_critic_by_hand_with_and_without_states() -> None:
    # v = .5 .6 .4 .9, r = 1 at the end, λ = ½: δ = .1, -.2, .6; Â = .15, .1, .6 (v_T enters nowhere)
    values = AdvantageInputs(f64([0, 0, 1]), torch.tensor([3]), prm_values_BT1=f64([0.5, 0.6, 0.4, 0.9]))
    close(run("prm_critic", values, lam=0.5).advantages, f64([0.15, 0.1, 0.6]))
    # x = .5 .7 .3: chain .5 .6 | .7 .4 | .3, links .1, .1, -.3, -.1, 1 - .3 = .7, from the end:
    #   .7, -.1 + .35 = .25, -.3 + .125 = -.175, .1 - .0875 = .0125, .1 + .00625 = .10625
    both = replace(values, prm_states_BT=f64([0.5, 0.7, 0.3]))
    close(run("prm_critic", both, lam=0.5).advantages, f64([0.10625, -0.175, 0.7]))
    # λ = 0: what the PRM thinks of each action, and the outcome for the last
    close(run("prm_critic", both, lam=0.0).advantages, f64([0.1, -0.3, 0.7]))
    # cut off: v_T stands for what follows, .9 instead of the outcome
    cut_off = replace(both, rewards_BT=f64([0, 0, 0]), bootstrapped_B=torch.tensor([True]))
    close(run("prm_critic", cut_off, lam=0.0).advantages, f64([0.1, -0.3, 0.6]))


def test_prm_critic_may_count_lambda_for_each_action_instead_of_each_link() -> None:
    # the links of the test before, λ = ½ behind an action's only:
    #   .7, -.1 + .7 = .6, -.3 + .3 = 0, .1 + 0 = .1, .1 + .05 = .15
    values = AdvantageInputs(f64([0, 0, 1]), torch.tensor([3]), prm_values_BT1=f64([0.5, 0.6, 0.4, 0.9]))
    both = replace(values, prm_states_BT=f64([0.5, 0.7, 0.3]))
    credited = run("prm_critic", both, lam=0.5, lam_per="action").advantages
    close(credited, f64([0.15, 0.0, 0.7]))
    # the same without states, less the luck of the observation before: 0, .7 - .6, .3 - .4
    close(credited, run("prm_critic", values, lam=0.5, lam_per="action").advantages - f64([0, 0.1, -0.1]))
    close(run("prm_critic", values, lam=0.5, lam_per="action").advantages, f64([0.15, 0.1, 0.6]))
    with pytest.raises(ConfigError, match="lam_per: got 'step', allowed: link, action"):
        run("prm_critic", both, lam_per="step")


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_prm_critic_on_states_treats_every_row_as_if_it_were_alone(lam: float) -> None:
    batch = ragged(5)
    assert batch.prm_values_BT1 is not None
    assert batch.prm_states_BT is not None
    together = run("prm_critic", batch, lam=lam).advantages
    for row, length in enumerate(batch.lengths_B.tolist()):
        alone = AdvantageInputs(
            batch.rewards_BT[row : row + 1, :length],
            batch.lengths_B[row : row + 1],
            prm_values_BT1=batch.prm_values_BT1[row : row + 1, : length + 1],
            prm_states_BT=batch.prm_states_BT[row : row + 1, :length],
        )
        close(run("prm_critic", alone, lam=lam).advantages[0], together[row, :length])
        assert together[row, length:].eq(0).all()


def test_prm_critic_clips_before_differences_and_refuses_what_it_cannot_mean() -> None:
    wild = AdvantageInputs(f64([0, 0, 1]), torch.tensor([3]), prm_values_BT1=f64([-0.5, 0.6, 1.4, 0.9]))
    close(run("prm_critic", wild, lam=0.0).advantages, f64([0.6, 0.4, 0]))
    states = replace(wild, prm_states_BT=f64([-0.1, 0.5, 1.2]))  # .6 - 0, 1 - .5, 1 - 1
    close(run("prm_critic", states, lam=0.0).advantages, f64([0.6, 0.5, 0]))
    with pytest.raises(ConfigError, match=r"prm_critic needs gamma 1, got 0\.99"):
        run("prm_critic", wild, gamma=0.99)
    broken = replace(wild, prm_values_BT1=f64([0.5, float("nan"), 0.4, 0.9]))
    with pytest.raises(DataError, match="the value v_1 of trajectory 0 is nan"):
        run("prm_critic", broken)
    with pytest.raises(DataError, match="the value x_3 of trajectory 0 is nan"):
        run("prm_critic", replace(wild, prm_states_BT=f64([0.5, 0.5, float("nan")])))
    with pytest.raises(ConfigError, match="v_max must be a finite number above 1, got 0"):
        run("prm_critic", wild, v_min=1.0, v_max=0.0)


def test_a_layout_of_other_rows_is_refused() -> None:
    batch, _ = tokens_of(ragged(6), 2, 1)
    assert batch.layout is not None
    with pytest.raises(ValueError, match=r"values_BL has shape \(6, 15\), expected \(5, 15\)"):
        run("token_gae", replace(batch, layout=TokenLayout(*(x[:5] for x in batch.layout))))
