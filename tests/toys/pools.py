"""Finished trajectories without a policy: for tests of what is done with them afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from rlprm.types import End, Outcome, Split, Step, StepScores, StopReason, Task, Trajectory


def trajectory(
    success: bool = False,
    steps: int = 2,
    *,
    task: str = "a",
    sample: int = 0,
    stop: StopReason | None = StopReason.DECLARED,
    score: float | None = None,
    end: End = End.DECLARED,
    action_tokens: int = 3,
) -> Trajectory:
    """A trajectory of ``steps`` actions of ``action_tokens`` tokens each, with one token between them."""
    mask = [0, *([1] * action_tokens + [0]) * steps][: 1 + (action_tokens + 1) * steps - 1] if steps else [0]
    starts = [1 + (action_tokens + 1) * t for t in range(steps)]
    return Trajectory(
        task=Task("tests.toys.corridor", task, Split.TEST),
        sample=sample,
        seed=sample,
        messages=(),
        token_ids=tuple(range(len(mask))),
        action_mask=tuple(mask),
        logprobs=(0.0,) * len(mask),
        steps=tuple(Step(s, s + action_tokens - 1, f"action {t}") for t, s in enumerate(starts, start=1)),
        outcome=Outcome(float(success) if score is None else score, success, "toy"),
        stop=stop,
        end=end,
        temperature=1.0,
        policy="toy",
        template="toy",
        error="RuntimeError: toy" if stop is StopReason.ERROR else None,
    )


def step_scores(values: Sequence[float], tokens: int = 7) -> StepScores:
    return StepScores(0.5, tuple(values), tokens)
