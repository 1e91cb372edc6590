"""Which rewards and estimators go together."""

from __future__ import annotations

import pytest

from rlprm.errors import ConfigError, UnknownComponentError
from rlprm.rl import advantages, rewards
from rlprm.rl.combinations import check_combination


def refused(reward: str, estimator: str) -> bool:
    try:
        check_combination(reward, estimator, samples_per_task=4)
    except ConfigError:
        return True
    return False


def test_what_goes_together_and_what_does_not() -> None:
    bad = {(r, e) for r in rewards.available() for e in advantages.available() if refused(r, e)}
    known = {
        *((r, e) for r in ("progress", "progress_terminal") for e in ("group", "leave_one_out", "filtered")),
        *(
            (r, e)
            for r in rewards.available()
            for e in ("prm_critic", "outcome_plus_progress")
            if r != "outcome"
        ),
    }
    assert bad == known


def test_the_reason_is_given() -> None:
    with pytest.raises(ConfigError, match=r"progress with group is outcome with group: .* cancels"):
        check_combination("progress", "group", samples_per_task=4)
    with pytest.raises(ConfigError, match="progress_terminal with leave_one_out is terminal with"):
        check_combination("progress_terminal", "leave_one_out", samples_per_task=4)
    with pytest.raises(ConfigError, match="progress with prm_critic counts the PRM twice"):
        check_combination("progress", "prm_critic")
    with pytest.raises(ConfigError, match=r"group compares the rollouts of one task .* got 1"):
        check_combination("outcome", "group", samples_per_task=1)


def test_not_everything_can_be_bootstrapped() -> None:
    for reward, estimator in (("outcome", "turn_gae"), ("progress", "token_gae"), ("outcome", "prm_critic")):
        check_combination(reward, estimator, bootstrap=True)
    with pytest.raises(ConfigError, match="min cannot bootstrap truncated episodes"):
        check_combination("min", "turn_gae", bootstrap=True)
    with pytest.raises(ConfigError, match="group cannot bootstrap truncated episodes"):
        check_combination("outcome", "group", samples_per_task=2, bootstrap=True)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UnknownComponentError, match="unknown step reward 'progres'"):
        check_combination("progres", "turn_gae")
    with pytest.raises(UnknownComponentError, match=r"advantage estimator .gae.; known: filtered, group"):
        check_combination("progress", "gae")
