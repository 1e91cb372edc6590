"""How well a scorer discriminates between actions of one state, compared with their Monte-Carlo values.

Beam search and dense rewards compare actions of one state. An AUC over trajectories hardly
measures that. A model that recognises easy tasks and late steps has a high AUC even if it
gives all actions of a state the same value.

Definitions:

* The Monte-Carlo value of an action is its success rate over n rollouts; where the
  action ended the episode it is known exactly.
* Rank correlation and pairwise accuracy are means over the *telling* states: those with
  at least one pair of actions whose values differ by more than two standard errors
  (``clearly_different``). Elsewhere the order is mostly noise; of states whose actions are all
  worth the same, one in four still passes for telling, where four are tried with 8 to 32 rollouts.
  A scorer that gives all actions of a telling state the same score has rank correlation 0 there.
* The gain of choosing is over all states, among the actions that were kept: the value of the
  one the scorer puts first minus what the policy gets by sampling among them (the mean value
  weighted by how often each was sampled). ``coverage`` is their share of what the policy
  sampled; rarer actions are in no number here. Actions that tie are taken as the policy would
  take them, so that a scorer without an opinion gains exactly 0.
* Two ceilings of the gain. ``ceiling``: the best estimated value; too high, since
  the best of several noisy estimates was partly lucky. ``attainable``: what
  choosing by one half of the rollouts gains in the other half, over many random halvings;
  too low, since half the rollouts choose worse than the truth. The truth lies between.
* Spreads are standard deviations within states. The variance that n rollouts cause by
  themselves, ``p (1 - p) / (n - 1)``, is taken off the values' variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlprm.data.probes import ActionProbe
from rlprm.errors import ArtifactError, DataError
from rlprm.functional.metrics import binomial_variance, clearly_different, pairwise_accuracy, spearman
from rlprm.functional.statistics.bootstrap import Interval, mean_interval, ratio_interval
from rlprm.runtime.files import read_json
from rlprm.scorers.base import Scorer
from rlprm.search.base import score_all

_HALVINGS = 64
"""Random halvings of a state's rollouts."""


@dataclass(frozen=True)
class ProbedState:
    """What a scorer and rollouts say of the actions tried in one state; one entry per action."""

    scores: tuple[float, ...]
    values: tuple[float, ...]
    """Success rates of the rollouts."""
    rollouts: tuple[int, ...]
    """How many; 0 where the value is known exactly."""
    frequencies: tuple[int, ...]
    """How often the policy sampled each action."""
    samples: int | None = None
    """How many actions it sampled, those that were not kept included."""

    def __post_init__(self) -> None:
        """Refuse what cannot be compared.

        Raises:
            DataError: for fewer than two actions, or parts of different lengths.
        """
        sizes = {len(part) for part in (self.scores, self.values, self.rollouts, self.frequencies)}
        if len(sizes) != 1 or min(sizes) < 2:
            raise DataError(f"a probed state needs two actions or more, got parts of {sorted(sizes)}")
        if min(self.frequencies) < 1:
            raise DataError(f"an action was sampled {min(self.frequencies)} times, expected 1 or more")


@dataclass(frozen=True)
class Discrimination:
    """How well one scorer discriminates between actions; intervals are 95 % bootstrap ones over states."""

    scorer: str
    states: int
    coverage: float | None
    """Mean share of the policy's samples in a state that were one of the actions; None where unknown."""
    telling_states: int
    """States in which at least one pair of actions clearly differs."""
    rank_correlation: Interval | None
    """Mean Spearman correlation of score and value in telling states; None where there are none."""
    pairwise_accuracy: Interval | None
    """Mean share of the clearly different pairs that the scorer puts in order."""
    gain: Interval
    """Points of success gained by taking the scorer's first choice for one step, then the policy again."""
    attainable: Interval
    """A lower bound of the best possible gain, in points."""
    ceiling: Interval
    """An upper bound of it, in points."""
    ceiling_reached: Interval | None
    """``gain / ceiling``; None if the ceiling is close to 0."""
    score_spread: Interval
    """Standard deviation of the scores within states."""
    value_spread: Interval
    """Standard deviation of the values within states, without the rollouts' noise."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values with names."""
        return {
            name: part._asdict() if isinstance(part, Interval) else part
            for name, part in {f: getattr(self, f) for f in asdict(self)}.items()
        }


def evaluate_discrimination(folder: str | Path, scorer: Scorer, *, seed: int = 0) -> Discrimination:
    """Score the actions of a finished probe (made by ``rlprm probe-actions``) and compare.

    Raises:
        ArtifactError: if the folder is not a finished probe.
        DataError: for scores that are missing or not finite.
        MismatchError: if the scorer was trained with another chat template.
    """
    probe = ActionProbe.open(folder)
    record = probe.folder / "stage.json"
    if not record.exists() or read_json(record)["stage"] != "probe-actions":
        raise ArtifactError(
            f"{folder} is not a finished probe of actions; run rlprm probe-actions to its end"
        )
    states = probe.read()
    scores = iter(score_all(scorer, [action.trajectory for actions in states for action in actions]))
    scored_states = []
    for actions in states:
        newest = [s.values[-1] for s in (next(scores) for _ in actions) if s is not None]
        scored_states.append(
            ProbedState(
                scores=tuple(newest),
                values=tuple(action.success for action in actions),
                rollouts=tuple(action.rollouts for action in actions),
                frequencies=tuple(action.frequency for action in actions),
                samples=actions[0].samples,
            )
        )
    return discrimination(scored_states, scorer=scorer.name, seed=seed)


def discrimination(states: Sequence[ProbedState], *, scorer: str, seed: int = 0) -> Discrimination:
    """Measure how well scores discriminate between actions.

    Args:
        states: independent of one another, as far as the intervals go.
        scorer: its name.
        seed: of the bootstrap and the halvings.

    Raises:
        DataError: for no states, or numbers that cannot be.
    """
    if not states:
        raise DataError("there is no state in which actions could be told apart")
    correlations, accuracies = [], []
    for state in states:
        pairs = clearly_different(state.values, state.rollouts)
        accuracy = pairwise_accuracy(state.scores, state.values, pairs)
        if accuracy is not None:
            accuracies.append(accuracy)
            correlations.append(spearman(state.scores, state.values) or 0.0)
    generator = np.random.default_rng(seed)
    gains = [100 * float(_gain(s.scores, s.values, s.frequencies)) for s in states]
    ceilings = [100 * float(_gain(s.values, s.values, s.frequencies)) for s in states]
    attainable = [100 * _attainable(s, generator) for s in states]
    return Discrimination(
        scorer=scorer,
        states=len(states),
        coverage=_coverage(states),
        telling_states=len(accuracies),
        rank_correlation=mean_interval(correlations, seed=seed) if correlations else None,
        pairwise_accuracy=mean_interval(accuracies, seed=seed) if accuracies else None,
        gain=mean_interval(gains, seed=seed),
        attainable=mean_interval(attainable, seed=seed),
        ceiling=mean_interval(ceilings, seed=seed),
        ceiling_reached=ratio_interval(gains, ceilings, seed=seed),
        score_spread=_spread([np.var(s.scores, ddof=1) for s in states], seed),
        value_spread=_spread(
            [np.var(s.values, ddof=1) - binomial_variance(s.values, s.rollouts).mean() for s in states], seed
        ),
    )


def _coverage(states: Sequence[ProbedState]) -> float | None:
    shares = [sum(s.frequencies) / s.samples for s in states if s.samples]
    return float(np.mean(shares)) if len(shares) == len(states) else None


def _gain(scores: ArrayLike, values: ArrayLike, frequencies: Sequence[int]) -> NDArray[np.float64]:
    """Value of the highest-scored action minus that of an action drawn as the policy drew them.

    Of actions that tie, the mean weighted by frequency. Scores and values may have
    leading dimensions; the last one is that of the actions.
    """
    score, value = np.asarray(scores), np.asarray(values)
    weight = np.broadcast_to(frequencies, score.shape)
    first = weight * (score == score.max(axis=-1, keepdims=True))
    chosen = (value * first).sum(-1) / first.sum(-1)
    gain: NDArray[np.float64] = chosen - (value * weight).sum(-1) / weight.sum(-1)
    return gain


def _attainable(state: ProbedState, generator: np.random.Generator) -> float:
    """Gain in one half of the rollouts of choosing by the other half, the mean over random halvings."""
    values, counts = np.asarray(state.values), np.asarray(state.rollouts)
    successes = np.rint(values * counts).astype(np.int64)
    half = counts // 2
    first = generator.hypergeometric(successes, counts - successes, half, size=(_HALVINGS, len(counts)))
    known = counts == 0
    # One success and one failure are added to each: a certain failure comes after 0 of 16.
    by_first = np.where(known, values, (first + 1) / (half + 2))
    by_second = np.where(known, values, (successes - first) / np.maximum(counts - half, 1))
    return float(_gain(by_first, by_second, state.frequencies).mean())


def _spread(variances: Sequence[Any], seed: int) -> Interval:
    """The root of the mean variance; a mean that noise pushed below 0 counts as 0."""
    return Interval(*(math.sqrt(max(bound, 0.0)) for bound in mean_interval(variances, seed=seed)))
