"""The state of a run of agent RL, and what may change when the run goes on; pure.

One function decides the next state, ``rl.keeping.checkpoints`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlprm.errors import ConfigError, refuse_other_settings

__all__ = [
    "Changes",
    "IterationFacts",
    "RunState",
    "changes",
    "is_extension",
    "next_state",
    "with_changes",
    "with_dev_outcome",
    "with_rollback",
]

FUTURE = frozenset(
    {
        "iterations", "max_env_steps", "learning_rate", "wave_size", "gradient_checkpointing",
        "eval_every", "eval_tasks", "eval_samples", "test_tasks", "test_samples", "on_alarm",
        "rollback_factor", "max_rollbacks",
    }
)  # fmt: skip
"""Settings that decide what is still to come alone."""
_MEASURED_BY = frozenset({"eval_tasks", "eval_samples"})
_LONGER = ("iterations", "max_env_steps")

Changes = Mapping[str, tuple[Any, Any]]
"""Name of a setting → its value before and now."""


@dataclass(frozen=True)
class RunState:
    """All that a run needs to resume, besides weights and optimiser; the rest follows from the iteration."""

    iteration: int = 0
    """Number of finished iterations."""
    env_steps: int = 0
    drawn_tasks: int = 0
    """Number of tasks that were taken from the list; read only under ``dynamic_sampling``."""
    tokens: int = 0
    """Number of tokens that the policy sampled."""
    prm: str = ""
    """Folder of the PRM in use."""
    best_iteration: int = -1
    """Iterations behind the policy that is kept, see ``with_dev_outcome``; -1 before the first evaluation."""
    best_success: float = -1.0
    """Highest mean outcome on dev tasks (success or score, whichever the run learns from)."""
    best_error: float = 0.0
    """Standard error of that mean."""
    alarms: Mapping[str, str] = field(default_factory=dict)
    """Each sign of reward hacking, with the iteration that showed it first."""
    watched_from: int = 0
    """First iteration that the alarm looks at."""
    rate_from: int = 0
    """Iteration from which the learning rate's schedule goes to its end."""
    rate_factor: float = 1.0
    """Factor of the learning rate there."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase."""
    rollbacks: int = 0
    """How often the run has gone back to its best policy."""
    rolled_back_at: int = 0
    """Iterations behind the last time."""


@dataclass(frozen=True)
class IterationFacts:
    """The results of one iteration that the next state depends on."""

    env_steps: int
    tokens: int
    drawn_tasks: int = 0
    signs: Mapping[str, str] = field(default_factory=dict)
    """Each sign of reward hacking in this iteration, with its description."""
    dev_outcome: float | None = None
    """Mean outcome on dev tasks after the update; None without an evaluation."""
    dev_error: float = 0.0
    """Standard error of that mean."""
    prm: str | None = None
    """Folder of a PRM that replaces the present one."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase since the last iteration."""


def next_state(state: RunState, facts: IterationFacts) -> RunState:
    """Return the state after an iteration.

    A sign keeps the iteration that showed it first.
    """
    iteration = state.iteration + 1
    new = {
        sign: f"iteration {state.iteration}: {text}"
        for sign, text in facts.signs.items()
        if sign not in state.alarms
    }
    seconds = {phase: round(state.seconds.get(phase, 0.0) + more, 3) for phase, more in facts.seconds.items()}
    after = replace(
        state,
        iteration=iteration,
        env_steps=state.env_steps + facts.env_steps,
        tokens=state.tokens + facts.tokens,
        drawn_tasks=state.drawn_tasks + facts.drawn_tasks,
        prm=state.prm if facts.prm is None else facts.prm,
        alarms={**state.alarms, **new},
        watched_from=state.watched_from if facts.prm is None else iteration,
        seconds={**state.seconds, **seconds},
    )
    return after if facts.dev_outcome is None else with_dev_outcome(after, facts.dev_outcome, facts.dev_error)


def with_dev_outcome(state: RunState, outcome: float, error: float = 0.0) -> RunState:
    """Return the state after an evaluation on dev tasks of the policy as it is.

    Kept is the latest policy whose outcome is less than one standard error below the highest. The highest of
    many noisy outcomes is often an early policy that was lucky. Without a standard error the earlier of two
    policies with the same outcome stays: the later one moved without a gain.

    Args:
        state: before the evaluation.
        outcome: mean over the dev tasks.
        error: its standard error over tasks.
    """
    if outcome > state.best_success:
        return replace(state, best_success=outcome, best_error=error, best_iteration=state.iteration)
    if outcome > state.best_success - state.best_error:
        return replace(state, best_iteration=state.iteration)
    return state


def with_rollback(state: RunState) -> RunState:
    """Return the state after the weights of the best policy were taken up again; the alarm begins anew.

    Iterations are counted on, so that other tasks follow than those that led astray.
    """
    return replace(
        state,
        rollbacks=state.rollbacks + 1,
        rolled_back_at=state.iteration,
        watched_from=state.iteration,
    )


def changes(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which a run that goes on differs from its past.

    Args:
        what: a clause such as ``"runs/a/checkpoints/iteration-000010 was made"``.
        before: settings of the past.
        now: settings of the present.

    Raises:
        MismatchError: if a setting differs that the past depends on.
    """
    different = {
        name: (before.get(name), now.get(name)) for name in FUTURE if before.get(name) != now.get(name)
    }
    refuse_other_settings(
        what,
        {name: value for name, value in before.items() if name not in FUTURE},
        {name: value for name, value in now.items() if name not in FUTURE},
    )
    return dict(sorted(different.items()))


def is_extension(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a finished run would go on: more iterations or more environment steps are allowed.

    Args:
        before: settings of the finished run.
        now: settings of the present.
    """
    allowed = [
        [float(settings.get(name) or 0) or float("inf") for name in _LONGER] for settings in (before, now)
    ]
    return all(new >= old for old, new in zip(*allowed, strict=True)) and allowed[0] != allowed[1]


def with_changes(state: RunState, changed: Changes, *, factor: float) -> RunState:
    """Return the state from which a run goes on with other settings.

    The learning rate's schedule goes on from its last factor. The alarm looks at what comes from here. If
    the policy is measured on other dev tasks, the best one is chosen anew.

    Args:
        state: at the checkpoint.
        changed: settings.
        factor: of the learning rate in the last iteration.

    Raises:
        ConfigError: if the run has had more iterations than are allowed now.
    """
    if not changed:
        return state
    if "iterations" in changed and changed["iterations"][1] < state.iteration:
        raise ConfigError(
            f"iterations: got {changed['iterations'][1]}, allowed: {state.iteration} (those done) or more"
        )
    state = replace(state, watched_from=state.iteration)
    if "iterations" in changed:
        state = replace(state, rate_from=state.iteration, rate_factor=factor)
    if changed.keys() & _MEASURED_BY:
        state = replace(state, best_iteration=-1, best_success=-1.0, best_error=0.0)
    return state
