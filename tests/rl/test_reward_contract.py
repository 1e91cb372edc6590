"""The contract of step rewards; a new file in ``rlprm/rl/rewards`` is tested without being mentioned."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError, DataError, UnknownComponentError
from rlprm.functional.masking import length_mask
from rlprm.rl import rewards
from rlprm.rl.rewards import RewardModule, StepRewards
from rlprm.rl.rewards.base import NOT_SETTINGS

LENGTHS = torch.tensor([4, 1, 0, 2])
OUTCOMES = torch.tensor([1.0, 0.0, 1.0, 0.5])
GAMMA = 0.9


@pytest.fixture(params=rewards.available())
def reward(request: pytest.FixtureRequest) -> RewardModule:
    return rewards.load(request.param)


def values(filler: float = 0.0) -> Tensor:
    chain = torch.rand(4, 7, generator=torch.Generator().manual_seed(0))  # two columns wider than needed
    return chain.where(length_mask(LENGTHS + 1, 7), filler)


def states(filler: float = 0.0) -> Tensor:
    chain = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
    return chain.where(length_mask(LENGTHS, 6), filler)


def pay(reward: RewardModule, filler: float = 0.0, states_BT: Tensor | None = None) -> StepRewards:
    return reward.step_rewards(values(filler), OUTCOMES, LENGTHS, gamma=GAMMA, states_BT=states_BT)


def test_the_known_rewards_are_found() -> None:
    known = {"outcome", "progress", "progress_terminal", "promise", "terminal", "min"}
    assert known <= set(rewards.available())
    with pytest.raises(UnknownComponentError, match=r"unknown step reward 'base'; known: .*progress"):
        rewards.load("base")


@pytest.mark.parametrize("with_states", [False, True])
def test_both_shares_have_the_shape_of_the_steps(reward: RewardModule, with_states: bool) -> None:
    paid = pay(reward, states_BT=states() if with_states else None)
    for share in (paid.prm, paid.outcome, paid.total):
        assert tuple(share.shape) == (4, 6)
        assert share.dtype == torch.float32
        assert share.isfinite().all()
        assert not share.requires_grad
        assert share.masked_fill(length_mask(LENGTHS, 6), 0.0).eq(0).all()
    assert torch.equal(paid.total, paid.prm + paid.outcome)


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("bootstrapped", [None, torch.tensor([True, False, True, False])])
def test_a_potential_is_what_the_prms_share_is_the_difference_of(
    reward: RewardModule, with_states: bool, bootstrapped: torch.Tensor | None
) -> None:
    if bootstrapped is not None and not reward.CAN_BOOTSTRAP:
        return
    paid = reward.step_rewards(
        values(), OUTCOMES, LENGTHS, gamma=0.9, states_BT=states() if with_states else None,
        bootstrapped_B=bootstrapped,
    )  # fmt: skip
    if paid.potential_BT1 is None:
        assert reward.TOTAL_OF != "outcome"
        return
    exists = length_mask(LENGTHS, 6)
    rise = 0.9 * paid.potential_BT1[:, 1:] - paid.potential_BT1[:, :-1]
    torch.testing.assert_close(rise[exists], paid.prm[exists])
    ends = paid.potential_BT1[torch.arange(4), LENGTHS]
    goes_on = torch.zeros(4, dtype=torch.bool) if bootstrapped is None else bootstrapped
    assert not ends[~goes_on].any()
    assert torch.equal(
        ends[goes_on & (LENGTHS > 0)], values()[torch.arange(4), LENGTHS][goes_on & (LENGTHS > 0)]
    )


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e30])
def test_padding_never_matters(reward: RewardModule, filler: float) -> None:
    for clean, dirty in (
        (pay(reward), pay(reward, filler)),
        (pay(reward, states_BT=states()), pay(reward, filler, states(filler))),
    ):
        assert torch.equal(clean.prm, dirty.prm)
        assert torch.equal(clean.outcome, dirty.outcome)


def test_a_row_depends_on_itself_alone(reward: RewardModule) -> None:
    together = pay(reward, states_BT=states())
    for row in range(4):
        only, length = slice(row, row + 1), max(int(LENGTHS[row]), 1)
        alone = reward.step_rewards(
            values()[only, : length + 1],
            OUTCOMES[only],
            LENGTHS[only],
            gamma=GAMMA,
            states_BT=states()[only, :length],
        )
        torch.testing.assert_close(alone.prm[0], together.prm[row, :length])
        torch.testing.assert_close(alone.outcome[0], together.outcome[row, :length])


def test_the_shares_are_kept_apart(reward: RewardModule) -> None:
    paid = pay(reward)
    other = reward.step_rewards(values(), 1.0 - OUTCOMES, LENGTHS, gamma=GAMMA)
    assert torch.equal(paid.prm, other.prm)  # the PRM's share knows nothing of the outcome, ...
    changed = reward.step_rewards(values() * 0.5, OUTCOMES, LENGTHS, gamma=GAMMA)
    assert torch.equal(paid.outcome, changed.outcome)  # ... nor the outcome's of the PRM
    assert torch.equal(paid.prm, changed.prm) != reward.NEEDS_VALUES


@pytest.mark.trap("zero reward")
def test_trap_an_outcome_of_zero_is_an_outcome(reward: RewardModule) -> None:
    # The failure in row 1 is paid 0 at its last step, and a reward of 1 for the success moves no other step.
    outcome = pay(reward).outcome
    last = torch.nn.functional.one_hot((LENGTHS - 1).clamp(min=0), 6) * (LENGTHS > 0).unsqueeze(1)
    torch.testing.assert_close(outcome, last * OUTCOMES.unsqueeze(1))
    failed = reward.step_rewards(values(), torch.zeros(4), LENGTHS, gamma=GAMMA)
    assert tuple(failed.total.shape) == (4, 6)
    torch.testing.assert_close((pay(reward).total - failed.total).sum(1), OUTCOMES * (LENGTHS > 0))


@pytest.mark.trap("truncation")
def test_trap_truncation_is_an_end_unless_it_is_bootstrapped(reward: RewardModule) -> None:
    nowhere = torch.zeros(4, dtype=torch.bool)
    cut_off = torch.tensor([True, False, True, False])

    def run(bootstrapped_B: Tensor | None) -> StepRewards:
        return reward.step_rewards(values(), OUTCOMES, LENGTHS, gamma=GAMMA, bootstrapped_B=bootstrapped_B)

    assert torch.equal(run(None).total, run(nowhere).total)
    if not reward.CAN_BOOTSTRAP:
        with pytest.raises(ConfigError, match="cannot be bootstrapped"):
            run(cut_off)
        return
    paid = run(cut_off)
    assert paid.outcome[cut_off].eq(0).all()  # the value of what follows predicts it
    for row in (1, 3):  # a termination beside it is what it was
        assert torch.equal(paid.total[row], run(None).total[row])
    assert torch.equal(paid.prm[:, :3][0], run(None).prm[:, :3][0])  # nothing changes before the last step


def test_values_are_clipped_before_anything_else(reward: RewardModule) -> None:
    wild = values() * 4.0 - 1.0
    paid = reward.step_rewards(wild, OUTCOMES, LENGTHS, gamma=GAMMA, states_BT=states() * 4.0 - 1.0)
    tame = reward.step_rewards(
        wild.clamp(0, 1), OUTCOMES, LENGTHS, gamma=GAMMA, states_BT=(states() * 4.0 - 1.0).clamp(0, 1)
    )
    assert torch.equal(paid.prm, tame.prm)


def test_half_precision_values_are_paid_in_float32(reward: RewardModule) -> None:
    coarse = values().to(torch.bfloat16)
    paid = reward.step_rewards(coarse, OUTCOMES, LENGTHS, gamma=GAMMA)
    exact = reward.step_rewards(coarse.float(), OUTCOMES, LENGTHS, gamma=GAMMA)
    assert torch.equal(paid.total, exact.total)


@pytest.mark.parametrize("name", rewards.available())
@pytest.mark.trap("missing score")
def test_trap_a_missing_score_never_silently_becomes_zero(name: str) -> None:
    reward, broken, states_BT = rewards.load(name), values(), states()
    broken[3, 2], states_BT[0, 1] = float("nan"), float("nan")
    with pytest.raises(DataError, match="the value v_2 of trajectory 3 is nan"):
        reward.step_rewards(broken, OUTCOMES, LENGTHS, gamma=GAMMA)
    if not reward.NEEDS_VALUES:
        reward.step_rewards(None, OUTCOMES, LENGTHS, gamma=GAMMA)
        return
    with pytest.raises(DataError, match="the value x_2 of trajectory 0 is nan"):
        reward.step_rewards(values(), OUTCOMES, LENGTHS, gamma=GAMMA, states_BT=states_BT)
    with pytest.raises(ConfigError, match="needs the values of a PRM"):
        reward.step_rewards(None, OUTCOMES, LENGTHS, gamma=GAMMA)


@pytest.mark.parametrize("outcome", [-0.1, 1.5, float("nan")])
def test_an_impossible_outcome_is_refused(reward: RewardModule, outcome: float) -> None:
    with pytest.raises(DataError, match="the outcome of trajectory 1 is"):
        reward.step_rewards(values()[:2], torch.tensor([1.0, outcome]), LENGTHS[:2], gamma=GAMMA)


def test_wrong_shapes_are_named(reward: RewardModule) -> None:
    with pytest.raises(ValueError, match=r"values_BT1 has shape \(3, 7\), expected \(4, 7\)"):
        reward.step_rewards(values()[:3], OUTCOMES, LENGTHS, gamma=GAMMA)
    with pytest.raises(ValueError, match=r"bootstrapped_B has shape \(3,\), expected \(4,\)"):
        reward.step_rewards(
            values(), OUTCOMES, LENGTHS, gamma=GAMMA, bootstrapped_B=torch.zeros(3, dtype=torch.bool)
        )
    with pytest.raises(ValueError, match=r"bootstrapped_B has dtype torch.int64, expected torch.bool"):
        reward.step_rewards(
            values(), OUTCOMES, LENGTHS, gamma=GAMMA, bootstrapped_B=torch.zeros(4, dtype=torch.long)
        )


@pytest.mark.parametrize("name", rewards.available())
def test_settings_are_named_have_defaults_and_are_checked(name: str) -> None:
    parameters = list(inspect.signature(rewards.load(name).step_rewards).parameters.values())
    assert [p.name for p in parameters[:3]] == ["values_BT1", "outcomes_B", "lengths_B"]
    assert {p.name for p in parameters[3:]} >= NOT_SETTINGS
    for parameter in parameters[3:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.name == "gamma" or parameter.default is not parameter.empty
    rewards.check_settings(name, {})
    with pytest.raises(ConfigError, match=f"the step reward {name} has no setting 'sclae'; allowed: "):
        rewards.check_settings(name, {"sclae": 1.0})
    for data in ("states_BT", "bootstrapped_B", "gamma"):
        with pytest.raises(ConfigError, match=f"has no setting '{data}'"):
            rewards.check_settings(name, {data: 0.5})
    with pytest.raises(ConfigError, match=r"gamma must lie in \[0, 1\], got 1\.1"):
        rewards.check_settings(name, {}, gamma=1.1)


@pytest.mark.parametrize("name", [n for n in rewards.available() if rewards.load(n).NEEDS_VALUES])
@pytest.mark.parametrize("setting", [{"scale": 0.0}, {"scale": "1"}, {"v_min": 1.0}, {"v_max": float("inf")}])
def test_settings_out_of_range_are_refused(name: str, setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))[:2]):
        rewards.check_settings(name, setting)
    rewards.check_settings(name, {"scale": 0.5, "v_min": -1.0, "v_max": 2.0})


@pytest.mark.parametrize("name", rewards.available())
def test_every_reward_says_where_its_critic_starts_and_what_its_total_is(name: str) -> None:
    factor = rewards.critic_factor(name, {})
    assert factor is None or isinstance(factor, float)
    total_of = rewards.load(name).TOTAL_OF
    assert total_of is None or total_of in set(rewards.available()) - {name}
