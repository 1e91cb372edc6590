"""A pool: n finished trajectories for each of K tasks, and the step scores that scorers gave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from rlprm.data.failures import has_failed
from rlprm.errors import ConfigError, DataError, MismatchError
from rlprm.functional.best_of_n import expected_cost
from rlprm.scorers.base import Lot, Scorer
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.search.base import score_all
from rlprm.types import End, StepScores, Trajectory

PoolScores = tuple[tuple[StepScores | None, ...], ...]
"""K rows of n; None where a trajectory could not be scored (it failed, or has no step)."""


@dataclass(frozen=True)
class Pool:
    """Candidates of several tasks, n for each; make one with ``Pool.of``."""

    trajectories: tuple[tuple[Trajectory, ...], ...]
    """K rows of n, each row one task in the order of sample numbers."""
    scores: Mapping[str, PoolScores] = field(default_factory=dict)
    """Name of a scorer → its scores."""

    @classmethod
    def from_trajectories(cls, trajectories: Iterable[Trajectory]) -> Pool:
        """Group trajectories by task, tasks in order of first appearance.

        Raises:
            DataError: for no trajectories, unequal numbers per task, a sample that is
                there twice, or an unfinished trajectory.
            MismatchError: for trajectories with different ``end`` or template.
        """
        rows: dict[str, list[Trajectory]] = {}
        for trajectory in trajectories:
            rows.setdefault(trajectory.task.id, []).append(trajectory)
        if not rows:
            raise DataError("a pool needs at least one trajectory")
        pool = cls(tuple(tuple(sorted(row, key=lambda t: t.sample)) for row in rows.values()))
        pool._check()
        return pool

    @property
    def n(self) -> int:
        """Candidates per task."""
        return len(self.trajectories[0])

    @property
    def task_ids(self) -> tuple[str, ...]:
        """Ids of the K tasks."""
        return tuple(row[0].task.id for row in self.trajectories)

    @property
    def end(self) -> End:
        """Who ended the episodes."""
        return self.trajectories[0][0].end

    @property
    def flat(self) -> list[Trajectory]:
        """All K·n trajectories, task by task."""
        return [trajectory for row in self.trajectories for trajectory in row]

    @property
    def failed(self) -> int:
        """Trajectories that failed; they stay candidates, without a score."""
        return sum(map(has_failed, self.flat))

    def expected_steps(self, k: int) -> float:
        """Return the environment steps of k candidates of a task, drawn without replacement; mean per task.

        Actions that several candidates begin with are carried out once, because a beam carries equal actions
        of one state out once, too.

        Raises:
            ConfigError: unless ``1 <= k <= n``.
        """
        return expected_cost(self.n, k, self._steps) / len(self.trajectories)

    @cached_property
    def _steps(self) -> Counter[tuple[int, int]]:
        return sum(map(shared_steps, self.trajectories), Counter[tuple[int, int]]())

    def scored(self, scorer: Scorer) -> Pool:
        """Return the pool with the scores of one more scorer, which gets all trajectories in one call.

        The scores of a lot (:class:`rlprm.scorers.base.Lot`) are equal.

        Raises:
            ConfigError: if a scorer of that name has scored the pool already.
            DataError: for scores that are missing or not finite.
        """
        self._check_is_new(scorer.name)
        flat = score_all(scorer.over_all_lots() if isinstance(scorer, Lot) else scorer, self.flat)
        rows = tuple(tuple(flat[start : start + self.n]) for start in range(0, len(flat), self.n))
        return replace(self, scores={**self.scores, scorer.name: rows})

    def weighed(self, scorer: WithConfidence) -> Pool:
        """Return the pool with the scores of one more scorer, made from those that its own scorer gave.

        Raises:
            ConfigError: if its own scorer has not scored the pool, or one of its name has.
        """
        self._check_is_new(scorer.name)
        rows = tuple(
            tuple(s and scorer.weigh(s, t) for s, t in zip(scores, row, strict=True))
            for scores, row in zip(self.scores_of(scorer.scorer.name), self.trajectories, strict=True)
        )
        return replace(self, scores={**self.scores, scorer.name: rows})

    def scores_of(self, scorer: str) -> PoolScores:
        """Return one scorer's scores.

        Raises:
            ConfigError: if it has not scored the pool; lists those that have.
        """
        if scorer not in self.scores:
            raise ConfigError(
                f"no scores of {scorer!r} in this pool; there are: {', '.join(self.scores) or 'none'}"
            )
        return self.scores[scorer]

    def _check_is_new(self, name: str) -> None:
        if name in self.scores:
            raise ConfigError(f"two scorers have the name {name!r}; their rows could not be told apart")

    def _check(self) -> None:
        n, end, template = self.n, self.end, self.trajectories[0][0].template
        for row in self.trajectories:
            task = row[0].task.id
            if len(row) != n:
                raise DataError(
                    f"task {task!r} has {len(row)} trajectories, the first task {n}; they must be equal"
                )
            if len({trajectory.sample for trajectory in row}) < n:
                raise DataError(f"task {task!r} has the same sample number twice")
            for trajectory in row:
                if trajectory.stop is None:
                    raise DataError(f"sample {trajectory.sample} of task {task!r} is unfinished")
                if (trajectory.end, trajectory.template) != (end, template):
                    raise MismatchError(
                        f"sample {trajectory.sample} of task {task!r} has end {trajectory.end} and template "
                        f"{trajectory.template}, the first trajectory {end} and {template}"
                    )


def shared_steps(row: Sequence[Trajectory], accepted: Collection[int] = ()) -> Counter[tuple[int, int]]:
    """Return how many environment steps are taken once for how many candidates of a task.

    Args:
        row: the candidates.
        accepted: places of those at which sampling stops, see ``best_of_n.expected_cost``.

    Returns:
        (unaccepted, accepted) candidates that begin with the same actions → the number of such actions.
    """
    begun: dict[tuple[str, ...], list[int]] = {}
    for place, trajectory in enumerate(row):
        actions = tuple(step.action for step in trajectory.steps)
        for length in range(1, len(actions) + 1):
            begun.setdefault(actions[:length], [0, 0])[place in accepted] += 1
    return Counter((unaccepted, of_accepted) for unaccepted, of_accepted in begun.values())
