"""Tree search with PUCT: the policy's probabilities as prior, the PRM's values at the leaves, visit counts.

A node of the tree is a state. Its edges are the distinct actions among ``m`` samples of the policy. A
simulation walks from the root to an action that was not carried out yet, along the edges with the highest

    Q(s, a) + c_puct · P(a | s) · sqrt(1 + Σ_b N(s, b)) / (1 + N(s, a)),

carries the action out, scores it, and adds the value to the mean Q of every edge on its way. ``N`` counts
visits. ``P`` is the policy's probability of the action, normalised over the edges of the node. An edge
without a visit has the value of its state as Q (the rule is AlphaZero's, Silver et al., Science 362:1140,
2018). The values should lie on the scale of the outcome, 0 to 1; another scale calls for another ``c_puct``.

* A simulation is one environment step.
* Leaf parallel: ``width`` simulations of a tree share a round. A simulation under way counts as a visit
  with the value 0 (virtual loss), so that the others spread.
* Root parallel: ``trees`` trees with samples of their own take turns, and share budget and result.
* A finished episode is an edge that no simulation enters again, and so is a state whose edges are all
  finished. A failed action adds no visit.
* The result is the best finished episode: terminated before truncated before failed, then by rank score.
* While no episode has terminated, the steps that the most visited line may still need are held back. When
  only these are left, one action at a time is sampled from the end of this line on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlprm.data.confidence import check_per
from rlprm.errors import ConfigError
from rlprm.policies.base import Completion, Policy
from rlprm.scorers.base import Scorer
from rlprm.search.base import UNRANKED, EndRank, SearchResult, end_rank
from rlprm.search.ledger import Candidate, Ledger
from rlprm.search.rounds import Plan, Step, best, check_sampling, expand, merge, run, sample, score, start
from rlprm.types import EpisodeSetting, Task

SIDE_BY_SIDE = ("m", "width", "trees")
NEEDS_PROBABILITIES = True

_SIMULATIONS = 128


@dataclass(eq=False)
class _Edge:
    """A sampled action of a state."""

    parent: _State
    completion: Completion
    samples: int
    prior: float
    visits: int = 0
    total: float = 0.0
    child: _State | None = None
    under_way: bool = False
    closed: bool = False


@dataclass(eq=False)
class _State:
    """A state of the tree."""

    candidate: Candidate
    value: float
    entry: _Edge | None = None
    edges: list[_Edge] | None = None
    """None before actions are sampled."""


@dataclass
class _Walk:
    """A simulation under way."""

    path: list[_Edge] = field(default_factory=list)
    end: _State | None = None
    """The state whose actions must be sampled first."""


@dataclass(frozen=True)
class _Settings:
    simulations: float
    m: int
    width: int
    trees: int
    c_puct: float
    per: str
    aggregation: str


def search(
    tasks: Sequence[Task],
    policy: Policy,
    scorer: Scorer,
    setting: EpisodeSetting,
    *,
    run_seed: int = 0,
    budget: int | None = None,
    simulations: int | None = None,
    m: int = 4,
    width: int = 4,
    trees: int = 1,
    c_puct: float = 1.0,
    per: str = "action",
    aggregation: str = "last",
) -> list[SearchResult]:
    """Search all tasks; see :class:`rlprm.search.base.SearchModule`.

    Args:
        tasks: what to solve.
        policy: samples the actions of every state once.
        scorer: scores every action that is carried out.
        setting: how episodes are run.
        run_seed: with a task's id, determines all its random numbers.
        budget: the most environment steps of one task.
        simulations: the most simulations; None for as many as the budget pays for, or 128 without one.
        m: actions sampled in a state.
        width: simulations of one tree in a round.
        trees: of one task.
        c_puct: weight of the prior against the values; 0 or more.
        per: unit of the prior, ``action`` or ``token``, see :func:`rlprm.data.confidence.check_per`.
            ``token`` is for messages with long thoughts.
        aggregation: from the step scores up to an action to its value.

    Raises:
        ConfigError: for a number below 1, a negative ``c_puct``, an unknown unit or aggregation, several
            samples from a greedy policy, or a policy that gives no probabilities.
        DataError: for scores that are missing or not finite.
    """
    counts = {"m": m, "width": width, "trees": trees}
    if simulations is not None:
        counts["simulations"] = simulations
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name}: got {count}, allowed: at least 1")
    if not c_puct >= 0:
        raise ConfigError(f"c_puct: got {c_puct}, allowed: 0 or more")
    check_sampling(policy, m * trees)
    most = simulations or (_SIMULATIONS if budget is None else math.inf)
    settings = _Settings(most, m, width, trees, c_puct, check_per(per), aggregation)

    def plan(ledger: Ledger) -> Plan[Candidate]:
        return _plan(ledger, settings)

    return run(tasks, policy, scorer, setting, plan, run_seed=run_seed, budget=budget, grows=True)


def _plan(ledger: Ledger, settings: _Settings) -> Plan[Candidate]:
    starts = yield from start(range(settings.trees))
    finished = [candidate for candidate in starts if candidate.stop is not None]
    roots = [_State(candidate, 0.0) for candidate in starts if candidate.stop is None]
    forest = list(roots)
    while forest:
        left = min(ledger.left, settings.simulations - ledger.env_steps)
        if not any(end_rank(candidate.stop) is EndRank.TERMINATED for candidate in finished):
            line = max((_most_visited(root) for root in forest), key=lambda state: _visits(state))
            needed = ledger.round_limit - line.candidate.turn
            if left <= needed:
                finished.append((yield from _play_out(ledger, line.candidate, left, settings)))
                break
            left -= needed
        if left <= 0:
            break
        walks = _select(forest, int(min(left, settings.width * len(forest))), settings.c_puct)
        yield from _sample_ends(walks, settings)
        walks = _enter(walks, settings.c_puct)
        if not walks:
            break
        finished += yield from _carry_out(ledger, [walk.path for walk in walks], settings.aggregation)
        forest = [root for root in forest if root.edges is None or not _is_closed(root)]
    for root in roots:
        _note_visits(ledger, root)
    ledger.keep(finished)
    return best(finished)


def _select(forest: Sequence[_State], wanted: int, c_puct: float) -> list[_Walk]:
    """Begin simulations, in the trees by turns."""
    walks = []
    for index in range(wanted):
        walk = _walk(_Walk(), forest[index % len(forest)], c_puct)
        if walk is not None:
            walks.append(walk)
    return walks


def _walk(walk: _Walk, state: _State, c_puct: float) -> _Walk | None:
    """Go on from a state to an action that is not carried out, or to a state without sampled actions.

    Returns:
        The walk with its visits counted; None, and nothing counted, if all actions are finished or taken.
    """
    while state.edges is not None:
        edges = [edge for edge in state.edges if not edge.closed and not edge.under_way]
        if not edges:
            for edge in walk.path:
                edge.visits -= 1
            return None
        width = c_puct * math.sqrt(1 + sum(edge.visits for edge in state.edges))
        edge = max(edges, key=lambda e: _mean(e) + width * e.prior / (1 + e.visits))
        edge.visits += 1
        walk.path.append(edge)
        if edge.child is None:
            edge.under_way, walk.end = True, None
            return walk
        state = edge.child
    walk.end = state
    return walk


def _mean(edge: _Edge) -> float:
    return edge.total / edge.visits if edge.visits else edge.parent.value


def _sample_ends(walks: Sequence[_Walk], settings: _Settings) -> Plan[None]:
    """Sample the actions of all states where walks ended without any."""
    states = list(dict.fromkeys(walk.end for walk in walks if walk.end is not None))
    if not states:
        return
    branches = [(state.candidate, branch) for state in states for branch in range(settings.m)]
    completions = yield from sample(branches)
    for index, state in enumerate(states):
        own = completions[index * settings.m : (index + 1) * settings.m]
        actions = merge([state.candidate] * settings.m, own)
        priors = _priors(state.candidate, own, settings.per)
        state.edges = [
            _Edge(state, completion, samples, prior)
            for (_, completion, samples), prior in zip(actions, priors, strict=True)
        ]


def _priors(candidate: Candidate, completions: Sequence[Completion], per: str) -> list[float]:
    """Return the policy's probability of each distinct action, over its sampled messages; they sum to 1."""
    if all(c.error is not None for c in completions):
        return [1.0]  # one action, which fails
    if any(c.said is not None for c in completions):
        raise ConfigError(
            "search: got puct, whose priors are the policy's probabilities, and a policy that gives only text"
        )
    logs = {
        c.ids: -math.inf if c.error else math.fsum(c.logprobs) / (c.sampled if per == "token" else 1)
        for c in completions
    }
    highest = max(logs.values())
    weights: dict[object, dict[tuple[int, ...], float]] = {}
    for c in completions:
        weights.setdefault(candidate.parse(c), {})[c.ids] = math.exp(logs[c.ids] - highest)
    sums = [math.fsum(of_action.values()) for of_action in weights.values()]
    return [weight / math.fsum(sums) for weight in sums]


def _enter(walks: Sequence[_Walk], c_puct: float) -> list[_Walk]:
    """Let each walk that ended in a state without actions take one of those that were sampled since."""
    entered = [walk if walk.end is None else _walk(walk, walk.end, c_puct) for walk in walks]
    return [walk for walk in entered if walk is not None]


def _carry_out(ledger: Ledger, paths: Sequence[Sequence[_Edge]], aggregation: str) -> Plan[list[Candidate]]:
    """Carry out the last action of each path and add its value to the path; return the finished episodes."""
    edges = [path[-1] for path in paths]
    children: list[Candidate] = yield Step(
        [(edge.parent.candidate, edge.completion) for edge in edges], fork=True
    )
    ledger.keep(edge.parent.candidate for edge in edges)
    yield from score(children, aggregation)
    for path, edge, child in zip(paths, edges, children, strict=True):
        ledger.note(child, samples=edge.samples)
        edge.under_way = False
        edge.child = _State(child, child.rank, edge)
        if child.rank == UNRANKED:  # the action failed
            for above in path:
                above.visits -= 1
        else:
            for above in path:
                above.total += child.rank
        if edge.parent.entry is None and child.scores is not None:
            edge.parent.value = child.scores.initial
    for edge, child in zip(edges, children, strict=True):
        if child.stop is not None:
            _close(edge)
    return [child for child in children if child.stop is not None]


def _close(edge: _Edge | None) -> None:
    """Close an edge, and those above whose states have no open edge left."""
    while edge is not None:
        edge.closed = True
        edge = edge.parent.entry if _is_closed(edge.parent) else None


def _is_closed(state: _State) -> bool:
    return state.edges is not None and all(edge.closed for edge in state.edges)


def _visits(state: _State) -> int:
    return state.entry.visits if state.entry is not None else 0


def _most_visited(state: _State) -> _State:
    """Return the end of the line of the most visited open edges; among equals, of the highest value."""
    while state.edges is not None:
        edges = [edge for edge in state.edges if edge.child is not None and not edge.closed]
        if not edges:
            break
        child = max(edges, key=lambda edge: (edge.visits, _mean(edge))).child
        assert child is not None
        state = child
    return state


def _play_out(ledger: Ledger, candidate: Candidate, steps: float, settings: _Settings) -> Plan[Candidate]:
    """Go on from a candidate, one sampled action after another, until it ends or the steps are taken."""
    for _ in range(int(min(steps, ledger.left))):
        if candidate.stop is not None:
            break
        ledger.keep([candidate])
        (candidate,) = yield from expand(ledger, [(candidate, settings.m)])
        yield from score([candidate], settings.aggregation)
    return ledger.close(candidate)


def _note_visits(ledger: Ledger, state: _State) -> None:
    for edge in state.edges or ():
        if edge.child is not None:
            ledger.note(edge.child.candidate, visits=edge.visits)
            _note_visits(ledger, edge.child)
