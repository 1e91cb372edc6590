"""Beam search over an agent's steps (arXiv 2511.08325): keep N partial trajectories, try M actions in each.

One round, for every task at once: sample actions, merge equal ones, carry the
rest out in copies of the environment, score, rank by the newest step's promise
``v_t`` (or by another rule over ``v_1 ... v_t``), keep N. From the paper: N, M, the ranking
by ``v_t``, and that the highest-scored finished trajectory is returned. Decided here, where the
paper is silent:

* The root is expanded N·M times, so that the first ranking is as wide as the others.
* Samples of one parent whose action is the same are one candidate. The merge comes
  before the ranking, so that copies do not fill the beam, and before the environment,
  which would carry out the same action twice. Beams differ in their history of actions from
  then on, so two parents never have the same child.
* Equal scores are settled by the order of sampling, first each parent's first
  sample, then each parent's second: a scorer without an opinion keeps the beam wide.
* Walking down the ranking until N unfinished candidates are kept, a finished one
  moves to the finished pool and takes no slot.
* A task is done when N of its candidates have terminated, or none is unfinished.
  Candidates that were cut off (a limit) do not count towards N: they are returned
  only if none terminated, and failed ones only if there are no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlprm.errors import ConfigError
from rlprm.policies.base import Completion, Policy
from rlprm.rollouts.episode import Episode, advance_all, episode_seed, start_episodes
from rlprm.scorers.base import Scorer, searching
from rlprm.search.base import UNRANKED, EndRank, SearchResult, end_rank, rank_score, score_all
from rlprm.types import EpisodeSetting, Task, Trajectory


class _Scored(NamedTuple):
    """A trajectory, finished or not, with what it is ranked by."""

    trajectory: Trajectory
    score: float

    @property
    def rank(self) -> tuple[int, float]:
        """Among finished ones, termination comes before any score."""
        return end_rank(self.trajectory.stop), self.score


@dataclass
class _Beam:
    """The search of one task while it goes on."""

    n: int
    m: int
    alive: list[Episode]
    finished: list[_Scored] = field(default_factory=list)
    sampled_tokens: int = 0
    policy_tokens: int = 0
    scorer_tokens: int = 0
    env_steps: int = 0

    def expansions(self) -> Iterator[tuple[Episode, int]]:
        """Yield (parent, branch number) for every action to sample, in the order that settles ties."""
        at_root = self.alive[0].turn == 0
        for sample in range(self.n * self.m if at_root else self.m):
            for slot, parent in enumerate(self.alive):
                yield parent, slot * self.m + sample

    def grow(self, completions: Sequence[Completion]) -> list[tuple[Episode, Completion]]:
        """Turn the sampled actions of ``expansions`` into children, one for each distinct action.

        Returns:
            The children, yet in their parents' state, and the action each is to take.
        """
        seen: set[tuple[int, str, str | None]] = set()
        children = []
        for (parent, _), completion in zip(self.expansions(), completions, strict=True):
            self.sampled_tokens += len(completion.ids)
            self.policy_tokens += completion.fed_tokens
            parsed = parent.format.parse(parent.policy.renderer.action_text(completion.ids))
            key = (id(parent), parsed.action, parsed.refusal)
            if key in seen:
                continue
            seen.add(key)
            self.env_steps += 1
            children.append((parent.fork(), completion))
        return children

    def select(self, children: Sequence[Episode], scored: Sequence[_Scored]) -> None:
        """Keep the N best unfinished children, and the finished ones that rank among them."""
        ranking = sorted(zip(children, scored, strict=True), key=lambda pair: -pair[1].score)  # stable
        self.alive = []
        for episode, candidate in ranking:
            if len(self.alive) == self.n:
                break
            if episode.stop is None:
                self.alive.append(episode)
            else:
                self.finished.append(candidate)
        if sum(end_rank(c.trajectory.stop) is EndRank.TERMINATED for c in self.finished) >= self.n:
            self.alive = []

    def result(self) -> SearchResult:
        """Return the best finished candidate; among equals, the first that finished."""
        best = max(self.finished, key=lambda c: c.rank)
        return SearchResult(
            trajectory=best.trajectory,
            score=None if best.score == UNRANKED else best.score,
            sampled_tokens=self.sampled_tokens,
            policy_tokens=self.policy_tokens,
            scorer_tokens=self.scorer_tokens,
            env_steps=self.env_steps,
        )


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    n: int = 4,
    m: int = 4,
    aggregation: str = "last",
) -> list[SearchResult]:
    """Search all tasks in lock-step: one call of policy and scorer per depth; see ``SearchModule``.

    Args:
        tasks: what to solve.
        policy: samples actions; it is handed a conversation once for every action wanted of it.
        scorer: scores candidates, unfinished ones included.
        setting: how episodes are run.
        run_seed: with a task's id, determines all its random numbers.
        n: partial trajectories kept after each round.
        m: actions sampled for each of them.
        aggregation: from a candidate's step scores to what it is ranked by: ``last`` is the paper's, see
            ``rlprm.functional.aggregation`` for others.

    Raises:
        ConfigError: for ``n`` or ``m`` below 1, several samples from a greedy policy, or an unknown rule.
        DataError: for scores that are missing or not finite.
    """
    if n < 1 or m < 1:
        raise ConfigError(f"a beam needs n and m of at least 1, got {n} and {m}")
    if n * m > 1 and policy.temperature == 0:
        raise ConfigError(
            f"a policy at temperature 0 samples the same action {n * m} times; raise the temperature"
        )
    starts = start_episodes([(task, 0, episode_seed(run_seed, task, 0)) for task in tasks], setting, policy)
    beams = [_begin(start, n, m) for start in starts]
    with searching(scorer):
        while growing := [beam for beam in beams if beam.alive]:
            _grow_all(growing, policy, scorer, aggregation)
    return [beam.result() for beam in beams]


def _begin(start: Episode | Trajectory, n: int, m: int) -> _Beam:
    """Return a beam of one; where the environment could not even start, one that is done and failed."""
    if isinstance(start, Episode):
        return _Beam(n, m, [start])
    return _Beam(n, m, [], [_Scored(start, UNRANKED)])


def _grow_all(beams: Sequence[_Beam], policy: Policy, scorer: Scorer, aggregation: str) -> None:
    """Advance every beam by one action."""
    wanted = [list(beam.expansions()) for beam in beams]
    flat = [expansion for of_beam in wanted for expansion in of_beam]
    completions = iter(
        policy.act([parent.conversation for parent, _ in flat], [parent.next_seed(b) for parent, b in flat])
    )
    grown = [
        beam.grow([next(completions) for _ in of_beam]) for beam, of_beam in zip(beams, wanted, strict=True)
    ]
    acting = [pair for of_beam in grown for pair in of_beam]
    advance_all([child for child, _ in acting], [completion for _, completion in acting])
    children = [[child for child, _ in of_beam] for of_beam in grown]
    trajectories = [[child.trajectory() for child in of_beam] for of_beam in children]
    scores = iter(score_all(scorer, [trajectory for of_beam in trajectories for trajectory in of_beam]))
    for beam, episodes, frozen in zip(beams, children, trajectories, strict=True):
        of_beam = [next(scores) for _ in episodes]
        beam.scorer_tokens += sum(s.tokens for s in of_beam if s is not None)
        ranks = [rank_score(s, aggregation) for s in of_beam]
        beam.select(episodes, [_Scored(t, rank) for t, rank in zip(frozen, ranks, strict=True)])
