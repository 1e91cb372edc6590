"""Rounds of a search. A strategy is written for one task; the tasks of a call advance together.

The strategy is a generator, its *plan*. The plan yields requests (start episodes, sample actions, take steps,
score) and receives the answers; it returns the chosen candidate. :func:`run` collects the requests of all
tasks, so that a round is one call of the policy and one of the scorer. A plan reads nothing but its own
answers. The result of a task is therefore independent of the other tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from rlprm.data.formats import Parsed
from rlprm.errors import ConfigError
from rlprm.policies.base import Completion, Policy
from rlprm.rollouts.acting import act
from rlprm.rollouts.episode import advance_all, episode_seed, start_episodes
from rlprm.scorers.base import Scorer, searching
from rlprm.search.base import EPISODES, SearchResult, check_budget, rank_score, score_all
from rlprm.search.ledger import Candidate, Ledger
from rlprm.types import EpisodeSetting, Task

_T = TypeVar("_T")


@dataclass(frozen=True)
class Start:
    """Begin episodes with these sample numbers, without a step; answered by their candidates."""

    samples: Sequence[int]


@dataclass(frozen=True)
class Sample:
    """Sample an action for each (candidate, branch number); answered by the completions."""

    branches: Sequence[tuple[Candidate, int]]


@dataclass(frozen=True)
class Step:
    """Carry out sampled actions, each one environment step; answered by the candidates that took them."""

    actions: Sequence[tuple[Candidate, Completion]]
    fork: bool
    """Act in copies of the candidates, which become their children."""


@dataclass(frozen=True)
class Score:
    """Score candidates; answered by the same candidates with ``scores`` and ``rank``."""

    candidates: Sequence[Candidate]
    aggregation: str
    pooled: bool = False
    """Score as an evaluation scores its pools: in one call, which waits until no task has another request,
    and equal candidates each by itself. Otherwise equal candidates of a task are scored once."""


Request = Start | Sample | Step | Score
Plan = Generator[Request, Any, _T]


def run(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer | None,
    setting: EpisodeSetting,
    plan: Callable[[Ledger], Plan[Candidate]],
    *,
    run_seed: int,
    budget: int | None,
    grows: bool,
) -> list[SearchResult]:
    """Search all tasks in rounds; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples actions.
        scorer: scores candidates; None if the plan has nothing scored.
        setting: how episodes are run.
        plan: the strategy, for the task of a ledger.
        run_seed: with a task's id, determines all its random numbers.
        budget: of each task.
        grows: whether each candidate is scored after each of its actions, so that a model may keep keys and
            values from round to round (``SearchingScorer``).
    """
    check_budget(budget)
    ledgers = [Ledger(task, setting, budget) for task in tasks]
    plans = [plan(ledger) for ledger in ledgers]
    chosen: dict[int, Candidate] = {}
    waiting: dict[int, Request] = {}

    def resume(index: int, answer: Any = None) -> None:
        try:
            waiting[index] = plans[index].send(answer)
        except StopIteration as done:
            waiting.pop(index, None)
            chosen[index] = done.value

    def serve(
        kind: type[Any], answer: Callable[[list[Ledger], list[Any]], list[Any]], pools: bool = True
    ) -> bool:
        asking = [
            index
            for index, request in sorted(waiting.items())
            if isinstance(request, kind) and (pools or not getattr(request, "pooled", False))
        ]
        if asking:
            answers = answer([ledgers[index] for index in asking], [waiting[index] for index in asking])
            for index, of_task in zip(asking, answers, strict=True):
                resume(index, of_task)
        return bool(asking)

    with searching(scorer) if grows and scorer is not None else nullcontext():
        for index in range(len(tasks)):
            resume(index)
        while waiting:
            serve(Start, lambda ledgers, requests: _start(ledgers, requests, policy, setting, run_seed))
            if not serve(Sample, lambda ledgers, requests: _sample(ledgers, requests, policy)):
                _clear(policy)
            serve(Step, _step)
            pools = all(isinstance(request, Score) and request.pooled for request in waiting.values())
            serve(Score, lambda ledgers, requests: _score(ledgers, requests, scorer), pools)
            serve(Step, _step)  # of plans that score an action before they carry it out
    return [ledger.result(chosen[index]) for index, ledger in enumerate(ledgers)]


def check_sampling(policy: Policy, samples: float) -> None:
    """Refuse several samples from a greedy policy.

    Raises:
        ConfigError: if the policy's temperature is 0 and more than one action is sampled in a state.
    """
    if samples > 1 and policy.temperature == 0:
        raise ConfigError(
            f"a policy at temperature 0 samples the same action {samples:.0f} times; raise the temperature"
        )


def episode_limit(n: int | None, budget: int | None) -> int:
    """Return the most episodes of a strategy that samples until its budget is gone.

    Args:
        n: the setting; None for as many as the budget pays for, or 16 without one.
        budget: the most environment steps. An episode takes one at least.

    Raises:
        ConfigError: for ``n`` below 1.
    """
    if n is not None and n < 1:
        raise ConfigError(f"n: got {n}, allowed: at least 1 episode, or no limit")
    return n or (EPISODES if budget is None else budget)


def start(samples: Sequence[int]) -> Plan[list[Candidate]]:
    """Begin episodes."""
    if not samples:
        return []
    candidates: list[Candidate] = yield Start(samples)
    return candidates


def sample(branches: Sequence[tuple[Candidate, int]]) -> Plan[list[Completion]]:
    """Sample an action for each (candidate, branch number)."""
    completions: list[Completion] = yield Sample(branches)
    return completions


def advance(ledger: Ledger, candidates: Sequence[Candidate]) -> Plan[list[Candidate]]:
    """Let unfinished candidates take one action each, in order, as many as steps are left.

    Returns:
        The candidates that took an action.
    """
    able = list(candidates[: _count(ledger.left, len(candidates))])
    if not able:
        return []
    completions = yield from sample([(candidate, 0) for candidate in able])
    moved: list[Candidate] = yield Step(list(zip(able, completions, strict=True)), fork=False)
    return moved


def expand(ledger: Ledger, branches: Sequence[tuple[Candidate, int]]) -> Plan[list[Candidate]]:
    """Sample actions in candidates and carry each distinct one out in a copy of its parent.

    Args:
        ledger: of the task; at most as many actions are sampled as steps are left.
        branches: (parent, branch number) of every action, in order.

    Returns:
        The children, in the order of their first samples. Equal actions of one parent are one child.
    """
    branches = branches[: _count(ledger.left, len(branches))]
    if not branches:
        return []
    completions = yield from sample(branches)
    actions = merge([parent for parent, _ in branches], completions)
    children: list[Candidate] = yield Step([(parent, done) for parent, done, _ in actions], fork=True)
    for child, (_, _, samples) in zip(children, actions, strict=True):
        ledger.note(child, samples=samples)
    return children


def merge(
    parents: Sequence[Candidate], completions: Sequence[Completion]
) -> list[tuple[Candidate, Completion, int]]:
    """Return (parent, first completion, number of completions) for each distinct action of a parent."""
    samples = Counter[tuple[int, Parsed]]()
    first: dict[tuple[int, Parsed], tuple[Candidate, Completion]] = {}
    for parent, completion in zip(parents, completions, strict=True):
        key = (id(parent), parent.parse(completion))
        samples[key] += 1
        first.setdefault(key, (parent, completion))
    return [(*first[key], count) for key, count in samples.items()]


def score(candidates: Sequence[Candidate], aggregation: str) -> Plan[None]:
    """Score candidates and set their rank scores."""
    if candidates:
        yield Score(candidates, aggregation)


def best(candidates: Sequence[Candidate]) -> Candidate:
    """Return the best of finished candidates: by how they ended, then by rank score; among equals, the first.

    Terminated episodes come before truncated ones, and these before failed ones.
    """
    return max(candidates, key=lambda candidate: candidate.end)


def _count(left: float, wanted: int) -> int:
    return int(min(left, wanted))


def _clear(policy: Policy) -> None:
    """Drop the keys and values of a policy that keeps them from one call to the next.

    A task that samples nothing in a round (a tree search) loses its own if another task samples. It loses
    them alone, too, so that its tokens do not depend on the other tasks.
    """
    if (clear := getattr(policy, "clear", None)) is not None:
        clear()


def _start(
    ledgers: Sequence[Ledger],
    requests: Sequence[Start],
    policy: Policy,
    setting: EpisodeSetting,
    run_seed: int,
) -> list[list[Candidate]]:
    jobs = [
        (ledger.task, sample, episode_seed(run_seed, ledger.task, sample))
        for ledger, request in zip(ledgers, requests, strict=True)
        for sample in request.samples
    ]
    started = iter(start_episodes(jobs, setting, policy))
    answers = [[Candidate(next(started)) for _ in request.samples] for request in requests]
    for ledger, candidates in zip(ledgers, answers, strict=True):
        for candidate in candidates:
            if candidate.stop is not None:
                ledger.enter(candidate)
    return answers


def _sample(ledgers: Sequence[Ledger], requests: Sequence[Sample], policy: Policy) -> list[list[Completion]]:
    flat = [branch for request in requests for branch in request.branches]
    completions = iter(
        act(
            policy,
            [parent.episode.conversation for parent, _ in flat],
            [parent.episode.next_seed(branch) for parent, branch in flat],
        )
    )
    answers = [[next(completions) for _ in request.branches] for request in requests]
    for ledger, of_task in zip(ledgers, answers, strict=True):
        ledger.begin_round()
        ledger.sampled_tokens += sum(len(completion.ids) for completion in of_task)
        ledger.policy_tokens += sum(completion.fed_tokens for completion in of_task)
    return answers


def _step(ledgers: Sequence[Ledger], requests: Sequence[Step]) -> list[list[Candidate]]:
    for ledger, request in zip(ledgers, requests, strict=True):
        if len(request.actions) > ledger.left:
            raise ValueError(f"{len(request.actions)} steps were requested, {ledger.left} are left")
        ledger.env_steps += len(request.actions)
        ledger.end_round()
    answers = [[c.fork() if r.fork else c for c, _ in r.actions] for r in requests]
    advance_all(
        [candidate.episode for of_task in answers for candidate in of_task],
        [completion for request in requests for _, completion in request.actions],
    )
    for ledger, of_task in zip(ledgers, answers, strict=True):
        for candidate in of_task:
            candidate.changed()
            ledger.enter(candidate)
    return answers


def _score(
    ledgers: Sequence[Ledger], requests: Sequence[Score], scorer: Scorer | None
) -> list[Sequence[Candidate]]:
    if scorer is None:
        raise ValueError("the plan of a search without a scorer requested a score")
    # Equal candidates get one score for another reason, too: rounding would rank them if each had its own.
    keys = [
        [
            (index,) if request.pooled else _content(candidate)
            for index, candidate in enumerate(request.candidates)
        ]
        for request in requests
    ]
    new = [
        {
            key: candidate.trajectory
            for key, candidate in zip(of_task, request.candidates, strict=True)
            if key not in ledger.scored
        }
        for ledger, request, of_task in zip(ledgers, requests, keys, strict=True)
    ]
    found = iter(score_all(scorer, [trajectory for of_task in new for trajectory in of_task.values()]))
    for ledger, request, of_task, fresh in zip(ledgers, requests, keys, new, strict=True):
        for key in fresh:
            scores = ledger.scored[key] = next(found)
            ledger.scorer_tokens += 0 if scores is None else scores.tokens
        for key, candidate in zip(of_task, request.candidates, strict=True):
            scores = candidate.scores = ledger.scored[key]
            candidate.rank = rank_score(scores, request.aggregation)
            if scores is not None:
                ledger.note(candidate, scores=scores.values[candidate.before :], rank=candidate.rank)
    return [request.candidates for request in requests]


def _content(candidate: Candidate) -> tuple[Hashable, ...]:
    """Return what a scorer can read of a candidate."""
    trajectory = candidate.trajectory
    return trajectory.token_ids, len(trajectory.messages), trajectory.stop
