"""The trajectories that a PRM learns from, in the tokens of its own tokenizer, and the held-out tasks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from rlprm.data.failures import with_outcome
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import DataError
from rlprm.labels import check_no_intermediate_reward
from rlprm.types import Trajectory

__all__ = ["in_own_tokens", "split_by_task", "usable_trajectories"]

log = logging.getLogger(__name__)


def in_own_tokens(
    trajectories: Sequence[Trajectory], renderer: ChatRenderer, context_length: int
) -> tuple[list[Trajectory], int]:
    """Render trajectories of another tokenizer or template again, and leave out those that become too long.

    Args:
        trajectories: as stored.
        renderer: of the PRM's tokenizer and chat template.
        context_length: the longest trajectory that fits, in tokens.

    Returns:
        The trajectories that fit, and the number of those that do not.

    Raises:
        DataError: if none fits.
    """
    own, rerenderer = renderer.template_hash, Rerenderer(renderer)
    foreign = {t.template for t in trajectories} - {own}
    if foreign:
        log.warning(
            "trajectories of template %s are rendered again with the model's own, %s",
            ", ".join(sorted(foreign)), own,
        )  # fmt: skip
    rendered = [rerenderer.render(t) for t in trajectories]
    fitting = [t for t in rendered if len(t.token_ids) <= context_length]
    too_long = len(rendered) - len(fitting)
    if not fitting:
        raise DataError(f"none of the {too_long} trajectories fits into the model's {context_length} tokens")
    if too_long:
        log.warning(
            "%d of %d trajectories do not fit into the model's %d tokens and are left out",
            too_long, len(rendered), context_length,
        )  # fmt: skip
    return fitting, too_long


def usable_trajectories(trajectories: Sequence[Trajectory], outcome: str) -> tuple[list[Trajectory], int]:
    """Leave out trajectories that failed or have no step.

    Args:
        trajectories: as stored.
        outcome: the number that labels are made of, ``"success"`` or ``"score"``.

    Returns:
        The usable trajectories, and the number of the others.

    Raises:
        DataError: if no trajectory is usable, or all usable ones have the same outcome, from which a
            PRM cannot learn.
    """
    usable = with_outcome(trajectories)
    for trajectory in usable:
        check_no_intermediate_reward(trajectory)
    if len({t.outcome.value(outcome) for t in usable}) == 1:
        way_out = "choose easier or harder tasks, or another policy"
        if len({t.outcome.score for t in usable}) > 1:
            way_out += ", or set outcome to score, which differs"
        raise DataError(
            f"all {len(usable)} trajectories have the same {outcome}, {usable[0].outcome.value(outcome):g}; "
            f"a PRM needs both successes and failures ({way_out})"
        )
    return usable, len(trajectories) - len(usable)


def split_by_task(
    trajectories: Sequence[Trajectory], fraction: float, seed: int
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Hold out a share of the *tasks* for evaluation; all rollouts of a task are on one side.

    Returns:
        The trajectories to learn from, and the held-out ones.

    Raises:
        DataError: if there are fewer than two tasks.
    """
    ids = sorted(
        {t.task.id for t in trajectories}, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest()
    )
    if len(ids) < 2:
        raise DataError(f"a held-out evaluation needs at least two tasks, got {len(ids)}")
    held_out = set(ids[: min(max(1, round(fraction * len(ids))), len(ids) - 1)])
    return (
        [t for t in trajectories if t.task.id not in held_out],
        [t for t in trajectories if t.task.id in held_out],
    )
