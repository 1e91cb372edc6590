"""The state of a run of agent RL: one function decides the next state, ``rl.checkpoints`` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["IterationFacts", "RunState", "next_state", "with_dev_outcome"]


@dataclass(frozen=True)
class RunState:
    """All that a run needs to resume, besides weights and optimiser; the rest follows from the iteration."""

    iteration: int = 0
    """Number of finished iterations."""
    env_steps: int = 0
    tokens: int = 0
    """Number of tokens that the policy sampled."""
    prm: str = ""
    """Folder of the PRM in use."""
    best_iteration: int = -1
    """Iterations behind the best policy on dev tasks; -1 before the first evaluation."""
    best_success: float = -1.0
    """Mean outcome of that policy (success or score, whichever the run learns from)."""
    alarms: Mapping[str, str] = field(default_factory=dict)
    """Each sign of reward hacking, with the iteration that showed it first."""
    watched_from: int = 0
    """First iteration that the alarm looks at."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase."""


@dataclass(frozen=True)
class IterationFacts:
    """The results of one iteration that the next state depends on."""

    env_steps: int
    tokens: int
    signs: Mapping[str, str] = field(default_factory=dict)
    """Each sign of reward hacking in this iteration, with its description."""
    dev_outcome: float | None = None
    """Mean outcome on dev tasks after the update; None without an evaluation."""
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
        prm=state.prm if facts.prm is None else facts.prm,
        alarms={**state.alarms, **new},
        watched_from=state.watched_from if facts.prm is None else iteration,
        seconds={**state.seconds, **seconds},
    )
    return after if facts.dev_outcome is None else with_dev_outcome(after, facts.dev_outcome)


def with_dev_outcome(state: RunState, outcome: float) -> RunState:
    """Return the state after an evaluation on dev tasks of the policy as it is.

    Of two policies with the same outcome the earlier stays the best: the later one moved without a gain.
    """
    if outcome <= state.best_success:
        return state
    return replace(state, best_success=outcome, best_iteration=state.iteration)
