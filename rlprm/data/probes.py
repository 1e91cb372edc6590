"""Probes of actions: several actions taken in one state, and what Monte-Carlo rollouts say each is worth.

One row an action: the columns of a stored trajectory (up to and including the
action), and its estimated value. Any scorer may score the rows later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlprm.data.shards import Shards
from rlprm.data.store import from_row, to_row
from rlprm.types import Trajectory

__all__ = ["ActionProbe", "ProbedAction"]


@dataclass(frozen=True)
class ProbedAction:
    """One of the actions tried in a state."""

    state: int
    """Number of the state; its actions share everything up to the newest step."""
    trajectory: Trajectory
    """The episode up to and including the action; its ``stop`` is None unless the action ended it."""
    frequency: int
    """How many of the sampled actions were this one."""
    samples: int
    """How many actions were sampled in the state."""
    success: float
    """Share of successful rollouts after the action; the episode's own outcome where the action ended it."""
    score: float
    """Mean of the environment's own score over the same rollouts."""
    rollouts: int
    """Number of rollouts; 0 where the action ended the episode, so that its worth is known exactly."""
    sampled_tokens: int
    """Tokens that the policy sampled in the rollouts."""
    env_steps: int
    """Actions of the rollouts."""

    @property
    def action(self) -> str:
        """The action as the environment was given it."""
        return self.trajectory.steps[-1].action


class ActionProbe(Shards):
    """A folder of probed actions (made by ``rlprm probe-actions``)."""

    HOLDS = "probed actions"

    def write(self, wave: int, actions: Sequence[ProbedAction]) -> None:
        """Store one wave of rollouts, atomically."""
        self.write_rows(wave, map(_to_row, actions))

    def read_wave(self, wave: int) -> list[ProbedAction]:
        """Read the actions of one wave.

        Raises:
            DataError: if a line is damaged; names shard and line.
        """
        return self.read_wave_rows(wave, _from_row)

    def read(self) -> list[list[ProbedAction]]:
        """Read all actions, grouped by state, in the order of their frequency.

        Raises:
            DataError: if there are none, or a line is damaged; names shard and line.
        """
        states: dict[int, list[ProbedAction]] = {}
        for action in self.read_rows(_from_row):
            states.setdefault(action.state, []).append(action)
        return list(states.values())


_FOUND = ("state", "frequency", "samples", "rollouts", "sampled_tokens", "env_steps")


def _to_row(action: ProbedAction) -> dict[str, Any]:
    return {
        **{name: getattr(action, name) for name in _FOUND},
        "turn": len(action.trajectory.steps),
        "action": action.action,
        "finished": action.trajectory.stop is not None,
        "mc_success": action.success,
        "mc_score": action.score,
        **to_row(action.trajectory),
    }


def _from_row(row: Mapping[str, Any]) -> ProbedAction:
    row = {"sampled_tokens": row.get("policy_tokens"), **row}  # their name in 0.1.0
    return ProbedAction(
        trajectory=from_row(row),
        success=float(row["mc_success"]),
        score=float(row["mc_score"]),
        **{name: int(row[name]) for name in _FOUND},
    )
