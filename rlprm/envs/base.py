"""What every environment provides.

An environment is a module (a file or a folder in ``rlprm/envs``, or one of the user's own, given by its
dotted path or by the path of its ``.py`` file) with the functions of :class:`EnvironmentModule`. It
makes :class:`Environment` objects, one per episode. Everything around an
episode (the round limit, token ids, stop bookkeeping) lives in
``rlprm.rollouts.episode``; an environment only knows its world and its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from rlprm.types import End, Message, Outcome, Split, Task, Tool, Trajectory, Turn


class Environment(Protocol):
    """One episode of one task; text in, text out."""

    def reset(self) -> str:
        """Start the episode and return the first observation. Called exactly once."""
        ...

    def step(self, action: str) -> Turn:
        """Carry out one action.

        Any string is allowed: what the environment does not understand gets its
        own answer as an observation, never an exception. Must not be called
        after a turn whose ``stop`` was set.
        """
        ...

    def outcome(self) -> Outcome:
        """Judge the episode as it stands; valid at any time after ``reset``."""
        ...

    def fork(self) -> Self:
        """Return an independent copy in the same state."""
        ...


class EnvironmentModule(Protocol):
    """The functions and constants an environment module defines.

    Required are ``ROUND_LIMIT``, ``tasks``, ``make`` and ``opening``. Optional are ``FIXED_PHRASES`` (no
    phrases if it is missing), ``demonstrate`` (``rlprm sft`` needs it, unless it learns from given
    trajectories), ``explain`` (the setting ``expert_thoughts`` needs it), ``tools`` (the action format
    ``tool_call`` needs it), ``read_transcript`` (the scorer ``transcript`` needs it) and ``answer`` (the
    baseline ``majority`` needs it). A task that ``tasks`` makes has ``environment=__name__``.

    One that needs more than the package (an optional dependency, a server) also has a function
    ``requirements() -> str | None`` without arguments: why it cannot run here, in one line that says how to
    mend it, or None. It must be quick and import nothing heavy; see :func:`rlprm.envs.missing`.

    One whose environments wait on a network also has a constant ``CONCURRENT: int``: how many of them are
    begun and stepped at once, each in a thread of its own; see :func:`rlprm.rollouts.episode.side_by_side`.
    """

    ROUND_LIMIT: int
    """Default number of agent turns."""
    FIXED_PHRASES: Sequence[str]
    """Optional: phrases of the environment's text that never vary inside. The embedded tokenizer gives each
    phrase one id."""

    def tasks(self, split: Split, start: int, count: int, **env_kwargs: Any) -> list[Task]:
        """Return tasks ``start ... start + count - 1`` of a split; the same arguments give the same tasks.

        Raises:
            ConfigError: for an unknown setting or a range the split does not have.
        """
        ...

    def make(self, task: Task, *, end: End) -> Environment:
        """Build the environment of a task."""
        ...

    def opening(self, *, end: End, style: str) -> list[Message]:
        """Return the messages that precede the first observation.

        ``style`` is ``"none"`` (no instructions), ``"short"`` or ``"agentgym"`` (AgentGym's own).
        """
        ...

    def tools(self, *, end: End) -> list[Tool]:
        """Optional: return the tools that a model may call instead of writing actions as text.

        Every action of the environment can be written as one call of one tool.
        """
        ...

    def demonstrate(self, task: Task, *, end: End) -> list[str]:
        """Optional: return the expert's actions for a task, within the round limit.

        Raises:
            DemonstrationError: where the expert does not solve the task.
        """
        ...

    def explain(self, task: Task, actions: Sequence[str]) -> list[str]:
        """Optional: return a short thought for each action that ``demonstrate`` returned for a task.

        A thought says in a sentence why the action comes next, and never what the agent cannot know.
        """
        ...

    def read_transcript(self, start: str, turns: Sequence[tuple[str, str]]) -> list[float]:
        """Optional: return, after each turn, how far a short rule believes that the task is solved.

        The rule sees the texts that the agent sees and nothing else. It answers the first question of a
        comparison: whether the outcome can be read off the transcript.

        Args:
            start: the first observation.
            turns: each action with the answer to it. The last answer is empty if the agent ended the episode,
                because a closing message may state the outcome.

        Returns:
            One number in [0, 1] for each turn; 1 if the rule believes that the task is solved.
        """
        ...

    def answer(self, trajectory: Trajectory) -> str | None:
        """Optional: return the final answer of a finished episode; None without one.

        Two episodes of a task agree if their answers are the same text. The baseline ``majority`` takes the
        answer that most candidates agree on. ``rlprm collect`` counts episodes without an answer
        (``unanswered`` in the results of its record).
        """
        ...
