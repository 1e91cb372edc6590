"""Best-of-k from one pool of n scored candidates, as exact expectations, without resampling.

Drawing k of the n candidates of a task without replacement and returning the one
with the highest score yields, with candidates in descending score order,

    BoN@k = Σ_{i=1}^{n} y_(i) C(n-i, k-1) / C(n, k)

because candidate (i) wins exactly when it is drawn and the other k - 1 come from
the n - i below it. Equal scores are settled by lot: their rewards are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlprm.errors import ConfigError, DataError

__all__ = ["best_of_k", "best_of_k_curve", "oracle_at_k", "pass_at_k", "win_probabilities"]


def win_probabilities(n: int, k: int) -> NDArray[np.float64]:
    """Return ``w_i = C(n-i, k-1) / C(n, k)`` for ``i = 1 ... n``: the chance that rank i wins.

    By ratios, so that no binomial coefficient is ever formed:
    ``w_1 = k / n`` and ``w_{i+1} = w_i (n - i - k + 1) / (n - i)``. They sum to 1.
    """
    _check_budget(n, k)
    i = np.arange(1, n)
    ratios = np.maximum(n - i - k + 1, 0) / (n - i)
    return np.asarray(k / n * np.concatenate([[1.0], np.cumprod(ratios)]), dtype=np.float64)


def best_of_k(scores_N: ArrayLike, rewards_N: ArrayLike, k: int) -> float:
    """Return the expected reward of the highest-scored of k candidates drawn from the pool.

    Args:
        scores_N: what candidates are chosen by; any order, no NaN.
        rewards_N: what is counted: success as 0 and 1, or a graded reward.
        k: the budget, ``1 ... n``.
    """
    rewards_by_rank = _rewards_by_rank(scores_N, rewards_N)
    return float(win_probabilities(len(rewards_by_rank), k) @ rewards_by_rank)


def best_of_k_curve(scores_N: ArrayLike, rewards_N: ArrayLike, budgets: Sequence[int]) -> dict[int, float]:
    """Return ``best_of_k`` for several budgets; the pool is sorted once."""
    rewards_by_rank = _rewards_by_rank(scores_N, rewards_N)
    n = len(rewards_by_rank)
    return {k: float(win_probabilities(n, k) @ rewards_by_rank) for k in budgets}


def oracle_at_k(rewards_N: ArrayLike, k: int) -> float:
    """Return the expected largest reward among k drawn candidates: no choice can do better.

    For rewards 0 and 1 this is ``pass_at_k``.
    """
    return best_of_k(rewards_N, rewards_N, k)


def pass_at_k(n: int, successes: int, k: int) -> float:
    """Return ``1 - C(n-c, k) / C(n, k)``, the chance that k of n candidates contain one of c successes.

    As the product ``1 - Π_{i=n-c+1}^{n} (1 - k / i)`` (Chen et al. 2021, arXiv 2107.03374).
    """
    _check_budget(n, k)
    if not 0 <= successes <= n:
        raise DataError(f"{successes} successes among {n} candidates")
    if n - successes < k:
        return 1.0
    i = np.arange(n - successes + 1, n + 1)
    return float(1.0 - np.prod(1.0 - k / i))


def _check_budget(n: int, k: int) -> None:
    if n < 1:
        raise DataError("a pool needs at least one candidate")
    if not 1 <= k <= n:
        raise ConfigError(f"best of {k} cannot be drawn from a pool of {n}; k must lie in 1 ... {n}")


def _rewards_by_rank(scores_N: ArrayLike, rewards_N: ArrayLike) -> NDArray[np.float64]:
    """Return rewards in descending score order, averaged over equal scores."""
    scores = np.asarray(scores_N, dtype=np.float64)
    rewards = np.asarray(rewards_N, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != rewards.shape:
        raise ValueError(
            f"scores_N has shape {scores.shape} and rewards_N {rewards.shape}, expected (N,) twice"
        )
    for name, numbers in (("score", scores), ("reward", rewards)):
        if np.isnan(numbers).any():
            raise DataError(f"the {name} of candidate {int(np.isnan(numbers).argmax())} is NaN")
    _, rank_of, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    means = np.bincount(rank_of, weights=rewards) / counts if len(scores) else rewards
    return np.repeat(means, counts)
