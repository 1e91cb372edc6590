"""The books of a search of one task: its candidates, its costs, its budget and its record."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from rlprm import envs
from rlprm.data.formats import Parsed
from rlprm.policies.base import Completion
from rlprm.rollouts.episode import Episode
from rlprm.search.base import UNRANKED, SearchResult, end_rank
from rlprm.search.record import Node
from rlprm.types import EpisodeSetting, StepScores, StopReason, Task, Trajectory


class Candidate:
    """An episode of a search, finished or not."""

    def __init__(self, start: Episode | Trajectory, parent: int | None = None) -> None:
        self._start = start
        self._frozen = start if isinstance(start, Trajectory) else None
        self.parent = parent
        """Number of the node that the candidate continues."""
        self.before = 0 if isinstance(start, Trajectory) else start.turn
        """Actions of that node and those before it."""
        self.number: int | None = None
        """Number of its own node; None before the first action."""
        self.scores: StepScores | None = None
        self.rank = UNRANKED

    @property
    def episode(self) -> Episode:
        """The episode itself; there is none if the environment could not start."""
        if isinstance(self._start, Trajectory):
            raise ValueError(f"task {self._start.task.id}: the environment did not start")
        return self._start

    @property
    def trajectory(self) -> Trajectory:
        """The episode as it is now."""
        if self._frozen is None:
            self._frozen = self.episode.trajectory()
        return self._frozen

    @property
    def stop(self) -> StopReason | None:
        """Why the episode ended; None while it goes on."""
        return self._start.stop

    @property
    def turn(self) -> int:
        """Number of actions so far."""
        return self._start.turn if isinstance(self._start, Episode) else 0

    @property
    def own_actions(self) -> tuple[str, ...]:
        """Texts of the actions of its node."""
        if isinstance(self._start, Trajectory):
            return ()
        return tuple(step.action for step in self._start.conversation.steps[self.before :])

    @property
    def end(self) -> tuple[int, float]:
        """What finished candidates are ranked by: how the episode ended, then the rank score."""
        return end_rank(self.stop), self.rank

    def parse(self, completion: Completion) -> Parsed:
        """Return the action that a sampled message stands for."""
        return self.episode.read_action(completion)

    def fork(self) -> Candidate:
        """Return a child, yet in the same state."""
        return Candidate(self.episode.fork(), self.number)

    def preview(self, completion: Completion) -> Candidate:
        """Return a child with one more action that the environment does not carry out."""
        episode = copy(self.episode)
        episode.conversation = episode.conversation.fork()
        child = Candidate(episode, self.number)
        action = episode.append_action(completion).action
        if episode.stop is None:
            episode.conversation.record(action, 0.0)
        return child

    def adopt(self, preview: Candidate) -> None:
        """Take over the node and the scores of a preview whose action is carried out next."""
        self.number, self.parent, self.before = preview.number, preview.parent, preview.before
        self.scores, self.rank = preview.scores, preview.rank

    def changed(self) -> None:
        """Drop the frozen trajectory after an action. A finished episode is judged at once."""
        self._frozen = None
        if self.stop is not None:
            self._frozen = self.episode.trajectory()


class Ledger:
    """The costs, the budget and the record of the search of one task.

    Args:
        task: that is searched.
        setting: how its episodes are run.
        budget: the most environment steps; None for any number.
    """

    def __init__(self, task: Task, setting: EpisodeSetting, budget: int | None) -> None:
        self.task = task
        self.round_limit = setting.round_limit or envs.of_task(task).ROUND_LIMIT
        """The most actions of an episode."""
        self.budget = math.inf if budget is None else budget
        self.round = self.sampled_tokens = self.policy_tokens = self.scorer_tokens = self.env_steps = 0
        self._in_round = False
        self.nodes: list[Node] = []
        self.scored: dict[Hashable, StepScores | None] = {}
        """Scores of the candidates so far, by their content."""

    @property
    def has_budget(self) -> bool:
        """Whether the steps are limited."""
        return math.isfinite(self.budget)

    @property
    def left(self) -> float:
        """Environment steps that are left."""
        return self.budget - self.env_steps

    def begin_round(self) -> None:
        """Count a round when its actions are sampled."""
        self.round, self._in_round = self.round + 1, True

    def end_round(self) -> None:
        """End the round when its actions are carried out, which may have been sampled in earlier rounds."""
        self.round += not self._in_round
        self._in_round = False

    def affordable(self, running: Sequence[Candidate], wanted: float) -> int:
        """Return how many episodes may be started beside those that run.

        An episode starts beside others only if the budget pays for all of them up to the round limit. Only
        an episode that runs alone can therefore be cut off, and the started episodes are those that would be
        started one after another.
        """
        reserved = sum(self.round_limit - candidate.turn for candidate in running)
        able = max((self.left - reserved) / self.round_limit, 0 if running or not self.left else 1)
        return int(min(able, wanted))

    def enter(self, candidate: Candidate) -> None:
        """Enter a candidate into the record, or bring its node up to date after an action."""
        if candidate.number is None:
            candidate.number = len(self.nodes)
            self.nodes.append(Node(candidate.number, candidate.parent, self.round, 0, (), (), None))
        self.note(
            candidate,
            depth=candidate.turn,
            actions=candidate.own_actions,
            stop=candidate.stop,
            success=None if candidate.stop is None else candidate.trajectory.outcome.success,
        )
        if candidate.stop is StopReason.ERROR:
            candidate.rank = UNRANKED
            self.note(candidate, rank=None)

    def preview(self, parent: Candidate, completion: Completion, samples: int) -> Candidate:
        """Enter a child of a candidate whose action the environment does not carry out."""
        child = parent.preview(completion)
        self.enter(child)
        self.note(child, samples=samples, executed=False)
        return child

    def note(self, candidate: Candidate, **changes: Any) -> None:
        """Change fields of a candidate's node."""
        assert candidate.number is not None
        self.nodes[candidate.number] = replace(self.nodes[candidate.number], **changes)

    def keep(self, candidates: Iterable[Candidate], kept: bool = True) -> None:
        """Note whether the search goes on with these candidates."""
        for candidate in candidates:
            if candidate.number is not None:
                self.note(candidate, kept=kept)

    def close(self, candidate: Candidate) -> Candidate:
        """End an unfinished episode because no environment step is left for it."""
        if candidate.stop is None:
            candidate.episode.stop = StopReason.SEARCH_LIMIT
            candidate.changed()
            self.enter(candidate)
        return candidate

    def result(self, chosen: Candidate) -> SearchResult:
        """Return the result of the search."""
        if chosen.number is None:  # the environment did not start
            self.enter(chosen)
        self.note(chosen, kept=True, chosen=True)
        return SearchResult(
            trajectory=chosen.trajectory,
            score=None if chosen.rank == UNRANKED else chosen.rank,
            sampled_tokens=self.sampled_tokens,
            policy_tokens=self.policy_tokens,
            scorer_tokens=self.scorer_tokens,
            env_steps=self.env_steps,
            nodes=tuple(self.nodes),
        )
