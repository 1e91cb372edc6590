"""Episodes of random tokens, for benchmarks that need no environment."""

from __future__ import annotations

import numpy as np

from rlprm.types import End, Outcome, Split, Step, StopReason, Task, Trajectory


def drawn(count: int, most_tokens: int, seed: int) -> list[Trajectory]:
    """Draw episodes of random tokens: a prompt, then 1 to 40 actions and observations."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        mask: list[int] = [0] * int(rng.integers(60, 120))
        steps: list[Step] = []
        for _ in range(min(40, int(rng.geometric(0.12)))):
            action, observation = int(rng.integers(4, 9)), int(rng.integers(12, 40))
            if len(mask) + action + observation > most_tokens:
                break
            steps.append(Step(len(mask), len(mask) + action - 1, "wait", 0.0, True))
            mask += [1] * action + [0] * observation
        success = bool(rng.integers(2))
        found.append(
            Trajectory(
                task=Task("drawn", str(number), Split.TRAIN), sample=0, seed=number, messages=(),
                token_ids=tuple(rng.integers(5, 200, len(mask)).tolist()), action_mask=tuple(mask),
                logprobs=(0.0,) * len(mask), steps=tuple(steps),
                outcome=Outcome(float(success), success, "drawn"), stop=StopReason.DECLARED,
                end=End.DECLARED, temperature=1.0, policy="drawn", template="drawn", error=None,
            )
        )  # fmt: skip
    return [trajectory for trajectory in found if trajectory.steps]
