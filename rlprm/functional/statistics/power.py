"""Power of a two-sided t test over seeds, from the noncentral t distribution."""

from __future__ import annotations

import math

from scipy import integrate, optimize, special, stats

from rlprm.errors import ConfigError

__all__ = ["detectable_difference", "power"]


def power(difference: float, *, deviation: float, seeds: int, alpha: float) -> float:
    """Return the chance that a true mean difference is detected.

    ``T = mean / (deviation / √S)`` follows a noncentral t distribution with S - 1 degrees of freedom and
    noncentrality ``difference √S / deviation``. A difference is detected if ``|T| > t(1 - α/2, S - 1)``.
    The chance is integrated over the sample's deviation. The noncentral t distribution of scipy is not used,
    because it returns NaN for few seeds and large effects.

    Args:
        difference: true mean over all possible seeds.
        deviation: standard deviation of the per-seed differences, above 0.
        seeds: S, 2 or more.
        alpha: level of the test; with Holm's correction and K comparisons, the worst case is 0.05 / K.

    Raises:
        ConfigError: naming what is out of range.
    """
    if deviation <= 0.0 or seeds < 2 or not 0.0 < alpha < 1.0:
        raise ConfigError(
            f"power: got deviation {deviation}, seeds {seeds}, alpha {alpha}, "
            "allowed: above 0, 2 or more, between 0 and 1"
        )
    bound, shift = float(stats.t.ppf(1.0 - alpha / 2.0, seeds - 1)), difference * math.sqrt(seeds) / deviation
    slope = bound / math.sqrt(seeds - 1)

    def detected(spread: float) -> float:
        """Chance given ``spread``, which follows a chi distribution with S - 1 degrees of freedom."""
        either = special.ndtr(shift - slope * spread) + special.ndtr(-shift - slope * spread)
        return float(either * stats.chi.pdf(spread, seeds - 1))

    return float(integrate.quad(detected, 0.0, math.sqrt(seeds) + 10.0)[0])


def detectable_difference(*, deviation: float, seeds: int, alpha: float = 0.05, chance: float = 0.8) -> float:
    """Return the smallest true difference that is detected with the given chance, in units of ``deviation``.

    Args:
        deviation: standard deviation over seeds; 0 gives 0.
        seeds: S, 2 or more.
        alpha: level of the two-sided test.
        chance: of detecting it.

    Raises:
        ConfigError: naming what is out of range.
    """
    if deviation == 0.0:
        return 0.0
    if not alpha < chance < 1.0:
        raise ConfigError(f"chance: got {chance}, allowed: between alpha {alpha} and 1")

    def missing(effect: float) -> float:
        return power(effect, deviation=1.0, seeds=seeds, alpha=alpha) - chance

    highest = 1.0
    while missing(highest) < 0.0:
        highest *= 2.0
    return deviation * float(optimize.brentq(missing, 0.0, highest))
