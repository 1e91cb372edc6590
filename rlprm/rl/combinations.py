"""Combinations of step reward and advantage estimator that are refused, and why."""

from __future__ import annotations

from rlprm.errors import ConfigError
from rlprm.rl import advantages, rewards

__all__ = ["check_combination", "check_objective", "check_selection"]


def check_combination(
    reward: str, advantage: str, *, samples_per_task: int = 1, bootstrap: bool = False
) -> None:
    """Refuse a reward and an estimator that cancel each other, or count the same thing twice.

    Args:
        reward: name or dotted path of a step reward.
        advantage: name or dotted path of an advantage estimator.
        samples_per_task: rollouts of one task in one update.
        bootstrap: whether truncated episodes are taken to go on.

    Raises:
        ConfigError: saying what the combination amounts to, and what to choose instead.
        UnknownComponentError: for an unknown name.
    """
    paid, credited = rewards.load(reward), advantages.load(advantage)
    if credited.LEVEL == "trajectory" and paid.TOTAL_OF is not None:
        raise ConfigError(
            f"{reward} with {advantage} is {paid.TOTAL_OF} with {advantage}: over a whole episode the "
            f"differences sum up to a constant of the task, which cancels between its episodes. Choose an "
            f"estimator that credits steps (turn_gae, token_gae), or the reward {paid.TOTAL_OF}"
        )
    if paid.NEEDS_VALUES and "prm_values_BT1" in credited.NEEDS:
        raise ConfigError(
            f"{reward} with {advantage} counts the PRM twice, once as reward and once as critic; "
            f"choose the reward outcome, or a critic that is trained on {reward} (turn_gae, token_gae)"
        )
    if "groups_B" in credited.NEEDS and samples_per_task < 2:
        raise ConfigError(
            f"{advantage} compares the rollouts of one task and needs 2 of them or more, got "
            f"{samples_per_task}: with fewer, every advantage is 0"
        )
    if bootstrap:
        for name, module in ((reward, paid), (advantage, credited)):
            if not module.CAN_BOOTSTRAP:
                raise ConfigError(f"{name} cannot bootstrap truncated episodes; count truncations as ends")


def check_objective(advantage: str, *, importance_level: str, whiten: str) -> None:
    """Refuse an estimator that the policy's objective cannot use.

    Raises:
        ConfigError: saying what to choose instead.
        UnknownComponentError: for an unknown name.
    """
    if importance_level == "message" and advantages.load(advantage).LEVEL == "token":
        raise ConfigError(
            f"importance_level: got message, but {advantage} credits tokens, and a message has one ratio; "
            "choose an estimator that credits steps (turn_gae, gigpo), or importance_level token"
        )
    if whiten in ("both", "scale") and advantages.imitates(advantage):
        raise ConfigError(
            f"whiten: got {whiten}, allowed with advantage {advantage}: auto, none (its advantages say what "
            "is imitated)"
        )


def check_selection(
    reward: str,
    advantage: str,
    *,
    dynamic_sampling: bool,
    tasks_by_difficulty: bool,
    max_staleness: int,
    best_of: int,
    has_prm: bool,
) -> None:
    """Refuse to learn from a part of the episodes where the rest would matter.

    Args:
        reward: name or dotted path of a step reward.
        advantage: name or dotted path of an advantage estimator.
        dynamic_sampling: whether tasks of equal returns are left out.
        tasks_by_difficulty: whether earlier success orders the tasks.
        max_staleness: of the run.
        best_of: rollouts of which the PRM's best one is learned from.
        has_prm: whether there is a PRM.

    Raises:
        ConfigError: saying what to choose instead.
        UnknownComponentError: for an unknown name.
    """
    paid, credited = rewards.load(reward), advantages.load(advantage)
    if dynamic_sampling:
        if "groups_B" not in credited.NEEDS or paid.NEEDS_VALUES:
            raise ConfigError(
                f"dynamic_sampling: with reward {reward} and advantage {advantage} episodes of equal outcome "
                "teach something; switch it off, or choose reward outcome and an estimator that compares "
                "rollouts of one task (group, leave_one_out, gigpo)"
            )
        if max_staleness:
            raise ConfigError(
                "dynamic_sampling: which tasks follow is known only after an iteration's episodes; set "
                "max_staleness 0"
            )
    if tasks_by_difficulty and max_staleness:
        raise ConfigError(
            "tasks_by_difficulty: the success that orders the tasks is known only after an iteration's "
            "episodes; set max_staleness 0"
        )
    if best_of > 1:
        if not has_prm:
            raise ConfigError(f"best_of: got {best_of}, but there is no PRM that knows the best; set prm")
        if not advantages.imitates(advantage):
            raise ConfigError(
                f"best_of: got {best_of}, but {advantage} needs the probabilities of what acted, and those "
                "of a best of several are unknown; choose advantage cloning, or best_of 1"
            )
        if paid.NEEDS_VALUES:
            raise ConfigError(
                f"best_of: got {best_of}, and reward {reward} would count the PRM twice; choose reward "
                "outcome"
            )
