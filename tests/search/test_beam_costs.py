"""What a beam costs with a reward model that reads: each token of it once, whoever is searched beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlprm import scorers
from rlprm.data.rendering import ChatRenderer
from rlprm.models.heads import HEADS
from rlprm.scorers import Scorer
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.scorers.random import Random
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.search import beam, best_of_n
from rlprm.types import End, EpisodeSetting, Split, Task, Trajectory
from tests.toys import corridor
from tests.toys.agents import ScriptedPolicy, SeededPolicy
from tests.toys.heads import with_random_head
from tests.toys.manifests import manifest
from tests.toys.searches import FromScratch, assert_alike

TASK = Task("tests.toys.corridor", "by-hand", Split.TEST, {"goal": 1, "length": 4, "budget": None})
LIMITED = EpisodeSetting(end=End.DECLARED, round_limit=4)
Make = Callable[[], Scorer]


@pytest.fixture(scope="module", params=[*HEADS, "model_confidence"])
def make(request: pytest.FixtureRequest, tiny_folder: Path, renderer: ChatRenderer) -> Make:
    """Build scorers of one model, with a random head or none; each has read nothing yet."""
    if request.param == "model_confidence":
        return lambda: scorers.build("clone", {"kind": "model_confidence", "model": str(tiny_folder)})
    model = with_random_head(tiny_folder, request.param)
    made = manifest(renderer.template_hash, head=request.param, value_reads="state_and_action")
    return lambda: CheckpointScorer("prm", model, made)


@pytest.mark.parametrize("wrap", [lambda scorer: scorer, WithConfidence], ids=["plain", "confident"])
@pytest.mark.parametrize("end", ["right", "finish", "pit"])
def test_one_path_costs_its_tokens_once_however_it_ends(
    make: Make, wrap: Callable[[Scorer], Scorer], end: str
) -> None:
    script = {("right",) * t: ["right" if t < 3 else end] for t in range(4)}
    (result,) = beam.search([TASK], ScriptedPolicy(script), wrap(make()), LIMITED, n=1, m=1)
    assert len(result.trajectory.steps) == 4
    assert result.scorer_tokens == len(result.trajectory.token_ids)


@pytest.mark.parametrize("other", ["pit", "right"])
def test_the_prompt_is_read_once_even_where_the_first_round_ends_it_all(
    make: Make, renderer: ChatRenderer, other: str
) -> None:
    setting = EpisodeSetting(end=End.DECLARED, round_limit=1)
    (result,) = beam.search([TASK], ScriptedPolicy({(): ["finish", other]}), make(), setting, n=1, m=2)
    actions = sum(len(renderer.action_ids(text)) for text in ("finish", other))
    assert result.scorer_tokens == result.trajectory.prompt_length + actions


@pytest.mark.parametrize("words", [("left", "right", "wait"), ("left", "right", "finish"), ("finish", "pit")])
def test_a_task_costs_and_finds_the_same_alone_and_in_portions_of_any_size(
    make: Make, words: tuple[str, ...]
) -> None:
    tasks = corridor.tasks(Split.TEST, 0, 6, length=5)
    assert len({task.spec["goal"] for task in tasks}) < 6  # some share their prompt
    together = beam.search(tasks, SeededPolicy(words), make(), LIMITED, n=2, m=3)
    for size in (1, 2, 4):
        scorer = make()
        portions = [tasks[start : start + size] for start in range(0, 6, size)]
        found = [r for p in portions for r in beam.search(p, SeededPolicy(words), scorer, LIMITED, n=2, m=3)]
        assert [r.scorer_tokens for r in found] == [r.scorer_tokens for r in together]
        for a, b in zip(found, together, strict=True):
            assert_alike(a, b)


@pytest.mark.parametrize("words", [("left", "right", "wait"), ("left", "right", "finish"), ("finish", "pit")])
def test_it_finds_what_reading_from_the_first_token_finds(make: Make, words: tuple[str, ...]) -> None:
    tasks = corridor.tasks(Split.TEST, 0, 6, length=5)
    growing, whole = (
        beam.search(tasks, SeededPolicy(words), scorer, LIMITED, n=2, m=3)
        for scorer in (make(), FromScratch(make))
    )
    for a, b in zip(growing, whole, strict=True):
        assert a.trajectory == b.trajectory
        assert a.score == pytest.approx(b.score, abs=1e-5)
        assert a.scorer_tokens < b.scorer_tokens


def continued(actions: Sequence[str]) -> Trajectory:
    """A walk along these actions that goes on."""
    script = {tuple(actions[:t]): [action] for t, action in enumerate(actions)}
    setting = replace(LIMITED, round_limit=len(actions))
    (result,) = beam.search([TASK], ScriptedPolicy(script), Random(), setting, n=1, m=1)
    return replace(result.trajectory, stop=None)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_kept_when_a_search_is_over(make: Make, fails: bool) -> None:
    # "left" was read last; then the limit ends the search, or the policy, which knows no second round, fails.
    scorer, policy = make(), ScriptedPolicy({(): ["right", "left"]})
    if fails:
        with pytest.raises(KeyError):
            beam.search([TASK], policy, scorer, LIMITED, n=2, m=1)
    else:
        beam.search([TASK], policy, scorer, replace(LIMITED, round_limit=1), n=2, m=1)
    grown = continued(["left", "right"])
    (scores,) = scorer.score([grown])
    assert scores.tokens == len(grown.token_ids)
    (next_round,) = scorer.score([grown := continued(["left", "right", "right"])])
    assert next_round.tokens < len(grown.token_ids)  # or the above says nothing


def test_a_pool_is_read_whole_before_and_after_a_search(make: Make) -> None:
    # Episodes of one step, as a beam's first round might be.
    scorer, tasks = make(), corridor.tasks(Split.TEST, 0, 3, length=5)
    policy, setting = SeededPolicy(("finish", "pit")), EpisodeSetting(end=End.DECLARED)
    before = best_of_n.search(tasks, policy, scorer, setting, n=4)
    beam.search(tasks, policy, scorer, setting, n=2, m=2)
    assert best_of_n.search(tasks, policy, scorer, setting, n=4) == before
    for result in before:
        assert len(result.trajectory.steps) == 1
        prompts = 4 * result.trajectory.prompt_length
        assert result.scorer_tokens == prompts + result.sampled_tokens
