"""Best-of-k from one pool of n scored candidates, as exact expectations, without resampling.

Drawing k of the n candidates of a task without replacement and returning the one
with the highest score yields, with candidates in descending score order,

    BoN@k = Σ_{i=1}^{n} y_(i) C(n-i, k-1) / C(n, k)

because candidate (i) wins exactly when it is drawn and the other k - 1 come from
the n - i below it. Equal scores are settled by lot: their rewards are averaged.

Sampling until acceptance draws the candidates one after another, stops at the first that is accepted, and
draws k at most. Without an accepted one, the result is the best of the k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlprm.errors import ConfigError, DataError

__all__ = [
    "best_of_k",
    "best_of_k_curve",
    "expected_cost",
    "oracle_at_k",
    "pass_at_k",
    "until_accepted_curve",
    "win_probabilities",
]


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


def until_accepted_curve(
    scores_N: ArrayLike, rewards_N: ArrayLike, accepted_N: ArrayLike, budgets: Sequence[int]
) -> dict[int, float]:
    """Return the expected reward of sampling until acceptance, for several k.

    Any of the accepted candidates may be the first, whatever its score. If no accepted score is below
    another one and the accepted ones are equal, this is ``best_of_k_curve``.

    Args:
        scores_N: what the best of k unaccepted candidates is chosen by.
        rewards_N: what is counted.
        accepted_N: whether sampling stops at a candidate.
        budgets: each in ``1 ... n``.
    """
    scores, rewards = np.asarray(scores_N, dtype=np.float64), np.asarray(rewards_N, dtype=np.float64)
    accepted = np.asarray(accepted_N, dtype=bool)
    n, count = len(accepted), int(accepted.sum())
    shows = {k: pass_at_k(n, count, k) for k in budgets}
    first = float(rewards[accepted].mean()) if count else 0.0
    unaccepted = [k for k in budgets if k <= n - count]
    otherwise = best_of_k_curve(scores[~accepted], rewards[~accepted], unaccepted)
    return {k: shows[k] * first + (1.0 - shows[k]) * otherwise.get(k, 0.0) for k in budgets}


def expected_cost(n: int, k: int, costs: Mapping[tuple[int, int], float], accepted: int = 0) -> float:
    """Return the expected cost of k of n candidates, or of fewer if sampling stops at an accepted one.

    A cost that several candidates share is paid once if any of them is drawn. Let ``u`` of the candidates be
    unaccepted and ``a`` accepted, and let ``c`` unaccepted and ``d`` accepted ones share a cost. With
    ``(x)_s = x (x - 1) ... (x - s + 1)``, none of them is drawn with the chance

        Σ_{s=1}^{k} (u-c)_{s-1} (a-d) / (n)_s + (u-c)_k / (n)_k.

    Args:
        n: candidates of the pool.
        k: the most that are drawn.
        costs: (unaccepted, accepted) candidates that share a cost → the cost, summed over all such.
        accepted: candidates at which sampling stops; 0 if all k are drawn.

    Raises:
        ConfigError: unless ``1 <= k <= n``.
        DataError: for more candidates than there are.
    """
    _check_budget(n, k)
    for sharing in costs:
        if not (0 <= sharing[0] <= n - accepted and 0 <= sharing[1] <= accepted <= n):
            raise DataError(f"{sharing} candidates share a cost, of {n - accepted} and {accepted}")
    return math.fsum(cost * (1.0 - _none_drawn(n, k, accepted, *c)) for c, cost in costs.items())


@lru_cache(maxsize=1 << 18)  # tasks and budgets ask for few different chances, many times
def _none_drawn(n: int, k: int, accepted: int, unaccepted_of: int, accepted_of: int) -> float:
    """Return the chance that sampling until acceptance draws none of some candidates.

    By ratios, so that no large factorial is formed.
    """
    goes_on, stopped = 1.0, 0.0  # no candidate of them so far: sampling goes on, has stopped
    for s in range(k):
        stopped += goes_on * (accepted - accepted_of) / (n - s)
        goes_on *= max(n - accepted - unaccepted_of - s, 0) / (n - s)
    return stopped + goes_on


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
