"""Majority voting over the final answers of k candidates, exact for every k up to the pool's size.

Of k candidates drawn from the n of a task, those without an answer do not vote. The answer with the most
votes wins; equal numbers of votes are settled by lot. With ``c_j`` candidates of answer j among the n and
``c_0`` without one,

    P(j wins) = Σ_a C(c_j, a) Σ_t W(a, t) / (t + 1) / C(n, k)

where ``W(a, t)`` counts the ways to draw the other ``k - a`` candidates so that t answers have a votes, too,
and none has more. If none of the k has an answer, the vote fails and counts as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rlprm.data.fed_tokens import expected_fed_tokens
from rlprm.errors import ConfigError
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.records import MAJORITY, Costs, Measurement, measure
from rlprm.types import Trajectory

__all__ = ["AnswerOf", "majority_of_k_curve", "majority_of_n"]

AnswerOf = Callable[[Trajectory], "str | None"]
"""The final answer of a trajectory; None without one."""


def majority_of_n(pool: Pool, answer: AnswerOf, budgets: Sequence[int]) -> list[Measurement]:
    """Measure majority voting over k candidates, for each budget k.

    Raises:
        ConfigError: for a budget outside ``1 ... n``.
    """
    rows = list(zip(pool.task_ids, pool.trajectories, strict=True))
    answers = {task: [answer(trajectory) for trajectory in row] for task, row in rows}
    success, graded = (
        {
            task: majority_of_k_curve(answers[task], [t.outcome.value(counted) for t in row], budgets)
            for task, row in rows
        }
        for counted in ("success", "score")
    )
    sampled = sum(t.action_tokens for t in pool.flat) / len(pool.flat)
    return [
        measure(
            {task: of_task[k] for task, of_task in success.items()},
            [of_task[k] for of_task in graded.values()],
            strategy=MAJORITY,
            end=pool.end,
            n=k,
            costs=Costs(
                policy_tokens=math.fsum(expected_fed_tokens(row, k) for _, row in rows) / len(rows),
                sampled_tokens=k * sampled,
                prm_tokens=0.0,
                env_steps=pool.expected_steps(k),
            ),
            failed=pool.failed,
        )
        for k in budgets
    ]


def majority_of_k_curve(
    answers: Sequence[str | None], rewards: Sequence[float], budgets: Sequence[int]
) -> dict[int, float]:
    """Return the expected reward of the majority answer of k drawn candidates, for several k.

    Args:
        answers: of the n candidates of one task; None does not vote.
        rewards: of the same candidates. An answer's reward is the mean over its candidates.
        budgets: each in ``1 ... n``.

    Raises:
        ConfigError: for a budget out of range.
    """
    n = len(answers)
    for k in budgets:
        if not 1 <= k <= n:
            raise ConfigError(f"majority of {k} cannot be drawn from a pool of {n}; k must lie in 1 ... {n}")
    groups: dict[str, list[float]] = {}
    for answer, reward in zip(answers, rewards, strict=True):
        if answer is not None:
            groups.setdefault(answer, []).append(reward)
    sizes = [len(group) for group in groups.values()]
    silent = np.array([float(math.comb(n - sum(sizes), b)) for b in range(n + 1)])
    wins: dict[int, NDArray[np.float64]] = {}  # size of a group → ways to win with it, for each k
    expected = np.zeros(n + 1)
    for index, group in enumerate(groups.values()):
        if len(group) not in wins:
            others = sizes[:index] + sizes[index + 1 :]
            wins[len(group)] = sum(
                (_ways(len(group), votes, others, silent) for votes in range(1, len(group) + 1)),
                np.zeros(n + 1),
            )
        expected += wins[len(group)] * (math.fsum(group) / len(group))
    return {k: float(expected[k] / math.comb(n, k)) for k in budgets}


def _ways(size: int, votes: int, others: Sequence[int], silent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each k, the draws of k that a group wins with a given number of votes; ties are shared.

    Args:
        size: of the group.
        votes: of the group, at least 1.
        others: sizes of the other groups.
        silent: ways to draw b candidates without an answer, for b = 0 ... n.
    """
    n = len(silent) - 1
    ways_KT = np.zeros((n + 1, len(others) + 1))  # drawn candidates × groups that tie
    ways_KT[votes, 0] = float(math.comb(size, votes))
    for other in others:
        grown_KT = np.zeros_like(ways_KT)
        for drawn in range(min(votes, other) + 1):
            moved_KT = ways_KT[: n + 1 - drawn] * math.comb(other, drawn)
            if drawn < votes:
                grown_KT[drawn:] += moved_KT
            else:
                grown_KT[drawn:, 1:] += moved_KT[:, :-1]
        ways_KT = grown_KT
    ways_K = (ways_KT / np.arange(1, len(others) + 2)).sum(axis=1)
    return np.convolve(ways_K, silent)[: n + 1]
