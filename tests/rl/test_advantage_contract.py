"""The contract of advantage estimators; a new file in ``rlprm/rl/advantages`` is tested unmentioned."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlprm.errors import ConfigError, UnknownComponentError
from rlprm.functional.masking import length_mask
from rlprm.functional.tokens import token_layout
from rlprm.rl import advantages
from rlprm.rl.advantages import AdvantageInputs, AdvantageModule, Advantages

# Three tokens a step: two sampled and a forced closing one; an observation of one token follows.
LENGTHS = torch.tensor([3, 1, 0, 4, 2, 4])
GROUPS = torch.tensor([5, 5, 5, 9, 9, 2])
WIDTH, TOKENS = 5, 24
STARTS = (2 + 4 * torch.arange(WIDTH)).expand(6, WIDTH)
POSITION = torch.arange(TOKENS) - 2
IN_STEP = (POSITION >= 0) & length_mask(4 * LENGTHS + 2, TOKENS)
ACTION_MASK = (IN_STEP & (POSITION % 4 < 2)).long()
LAYOUT = token_layout(ACTION_MASK, STARTS, STARTS + 2, LENGTHS)


@pytest.fixture(params=advantages.available())
def estimator(request: pytest.FixtureRequest) -> AdvantageModule:
    return advantages.load(request.param)


def inputs(filler: float = 0.0) -> AdvantageInputs:
    generator = torch.Generator().manual_seed(0)

    def numbers(exists: Tensor) -> Tensor:
        return torch.rand(exists.shape, generator=generator).where(exists, filler)

    steps = length_mask(LENGTHS, WIDTH)
    return AdvantageInputs(
        rewards_BT=numbers(steps),
        lengths_B=LENGTHS,
        values_BT=numbers(steps),
        values_BL=numbers(ACTION_MASK == 1),
        end_values_B=torch.full((6,), filler),
        outcomes_B=torch.tensor([1.0, 0.0, 0.0, 0.5, 1.0, 0.0]),
        prm_values_BT1=numbers(length_mask(LENGTHS + 1, WIDTH + 1)),
        groups_B=GROUPS,
        layout=LAYOUT,
    )


def rows(batch: AdvantageInputs, chosen: Tensor) -> AdvantageInputs:
    """The same batch with some of its rows, in the order given."""
    assert batch.layout is not None
    tensors = {
        name: getattr(batch, name)[chosen]
        for name in (
            "rewards_BT",
            "lengths_B",
            "values_BT",
            "values_BL",
            "outcomes_B",
            "prm_values_BT1",
            "groups_B",
        )
    }
    return replace(
        batch, **tensors, end_values_B=None, layout=type(batch.layout)(*(x[chosen] for x in batch.layout))
    )


def estimate(estimator: AdvantageModule, batch: AdvantageInputs) -> Advantages:
    return estimator.estimate(batch, gamma=1.0)


def of_returns(found: Advantages) -> Tensor:
    """The advantages without a part that the PRM gives on top."""
    return found.advantages if found.prm is None else found.advantages - found.prm


def test_the_known_estimators_are_found() -> None:
    known = {"turn_gae", "token_gae", "group", "leave_one_out", "prm_critic", "filtered"}
    assert known <= set(advantages.available())
    with pytest.raises(UnknownComponentError, match="unknown advantage estimator 'base'"):
        advantages.load("base")


def test_results_are_finite_and_lie_where_something_exists(estimator: AdvantageModule) -> None:
    found = estimate(estimator, inputs())
    expected = ACTION_MASK == 1 if estimator.LEVEL == "token" else length_mask(LENGTHS, WIDTH)
    assert torch.equal(found.mask, expected)
    for part in (found.advantages, found.returns, found.prm):
        if part is not None:
            assert part.shape == expected.shape
            assert part.dtype == torch.float32
            assert part.isfinite().all()
            assert not part.requires_grad
            assert part[~expected].eq(0).all()
    assert found.advantages.ne(0).any()
    assert found.advantages[2].eq(0).all()  # no steps


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e30])
def test_padding_never_matters(estimator: AdvantageModule, filler: float) -> None:
    clean, dirty = estimate(estimator, inputs()), estimate(estimator, inputs(filler))
    assert torch.equal(clean.advantages, dirty.advantages)
    if clean.returns is not None and dirty.returns is not None:
        assert torch.equal(clean.returns, dirty.returns)


def test_a_row_depends_on_itself_or_on_its_group_alone(estimator: AdvantageModule) -> None:
    together = estimate(estimator, inputs())
    for group in (5, 9, 2):
        chosen = GROUPS.eq(group).nonzero().squeeze(1).flip(0)
        alone = estimate(estimator, rows(inputs(), chosen))
        torch.testing.assert_close(alone.advantages, together.advantages[chosen])
    if estimator.LEVEL != "trajectory":
        for row in range(6):
            alone = estimate(estimator, rows(inputs(), torch.tensor([row])))
            torch.testing.assert_close(alone.advantages, together.advantages[row : row + 1])


def test_what_credits_whole_episodes_credits_their_steps_alike(estimator: AdvantageModule) -> None:
    found = estimate(estimator, inputs())
    spread = [found.advantages[b][found.mask[b]].unique() for b in range(6)]
    assert all(len(values) <= 1 for values in spread) == (estimator.LEVEL == "trajectory")


def test_no_gradient_reaches_the_critic(estimator: AdvantageModule) -> None:
    batch = inputs()
    for tensor in (batch.rewards_BT, batch.values_BT, batch.values_BL, batch.prm_values_BT1):
        assert tensor is not None
        tensor.requires_grad_()
    found = estimate(estimator, batch)
    assert not found.advantages.requires_grad
    assert found.returns is None or not found.returns.requires_grad


def test_a_critics_target_is_the_advantage_above_its_value(estimator: AdvantageModule) -> None:
    found, batch = estimate(estimator, inputs()), inputs()
    if found.returns is None:
        assert not {"values_BT", "values_BL"} & estimator.NEEDS
        return
    values = batch.values_BL if estimator.LEVEL == "token" else batch.values_BT
    assert values is not None
    torch.testing.assert_close(found.returns, (of_returns(found) + values).where(found.mask, 0.0))


@pytest.mark.parametrize("name", advantages.available())
def test_what_is_missing_is_named(name: str) -> None:
    module = advantages.load(name)
    bare = AdvantageInputs(torch.zeros(6, WIDTH), LENGTHS)
    if module.NEEDS:
        with pytest.raises(ConfigError, match=f"{name} needs {', '.join(sorted(module.NEEDS))}"):
            module.estimate(bare, gamma=1.0)
    whole = inputs()
    module.estimate(replace(bare, **{need: getattr(whole, need) for need in module.NEEDS}), gamma=1.0)


@pytest.mark.trap("truncation")
def test_trap_truncation_is_an_end_unless_it_is_bootstrapped(estimator: AdvantageModule) -> None:
    ended = inputs()
    cut_off = torch.tensor([True, False, True, False, False, True])
    ends = torch.full((6,), 0.7).where(cut_off, float("nan"))  # only where bootstrapped is it read
    continued = replace(ended, bootstrapped_B=cut_off, end_values_B=ends)
    unused = replace(ended, bootstrapped_B=torch.zeros(6, dtype=torch.bool), end_values_B=None)
    assert torch.equal(estimate(estimator, ended).advantages, estimate(estimator, unused).advantages)
    if not estimator.CAN_BOOTSTRAP:
        with pytest.raises(ConfigError, match="cannot be bootstrapped"):
            estimate(estimator, continued)
        return
    before, after = estimate(estimator, ended), estimate(estimator, continued)
    has_critic = bool({"values_BT", "values_BL"} & estimator.NEEDS)
    assert torch.equal(before.advantages[~cut_off], after.advantages[~cut_off])
    for row in (0, 5):
        last = int(before.mask[row].nonzero()[-1])
        rise = of_returns(after)[row, last] - of_returns(before)[row, last]
        chain = ended.prm_values_BT1
        assert chain is not None
        follows = 0.7 if has_critic else float(chain[row, LENGTHS[row]])
        assert float(rise) == pytest.approx(follows, abs=1e-6)
    if has_critic:
        with pytest.raises(ConfigError, match="only be bootstrapped with end_values_B"):
            estimate(estimator, replace(continued, end_values_B=None))


@pytest.mark.parametrize("name", advantages.available())
def test_settings_are_named_have_defaults_and_are_checked(name: str) -> None:
    parameters = list(inspect.signature(advantages.load(name).estimate).parameters.values())
    assert [p.name for p in parameters[:2]] == ["inputs", "gamma"]
    for parameter in parameters[1:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.name == "gamma" or parameter.default is not parameter.empty
    advantages.check_settings(name, {})
    with pytest.raises(ConfigError, match=f"the advantage estimator {name} has no setting 'lmbda'; allowed"):
        advantages.check_settings(name, {"lmbda": 0.9})
    with pytest.raises(ConfigError, match="has no setting 'gamma'"):
        advantages.check_settings(name, {"gamma": 1.0})
    with pytest.raises(ConfigError, match="gamma"):
        advantages.check_settings(name, {}, gamma=1.1)


def test_a_batch_whose_parts_do_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lengths_B spans 0 \.\.\. 4, expected values in 0 \.\.\. 3"):
        AdvantageInputs(torch.zeros(6, 3), LENGTHS)
    with pytest.raises(ValueError, match=r"bootstrapped_B has dtype torch\.float32"):
        AdvantageInputs(torch.zeros(6, WIDTH), LENGTHS, torch.zeros(6))
