"""What a search costs with models: independent of the other tasks, for the same scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm import search
from rlprm.data.rendering import ChatRenderer
from rlprm.models.heads import HEADS
from rlprm.models.tiny import tiny_model
from rlprm.policies.hf import HFPolicy
from rlprm.scorers.checkpoint import CheckpointScorer
from rlprm.search import halving, puct, resample, sample_until_accepted
from rlprm.types import End, EpisodeSetting, Split, Task
from tests.toys import corridor
from tests.toys.agents import FunctionScorer, ScriptedPolicy, SeededPolicy, renderer
from tests.toys.heads import with_random_head
from tests.toys.manifests import manifest
from tests.toys.searches import FromScratch, assert_alike

TASK = Task("tests.toys.corridor", "by-hand", Split.TEST, {"goal": 1, "length": 4, "budget": None})
LIMITED = EpisodeSetting(end=End.DECLARED, round_limit=5)
Make = Callable[[], CheckpointScorer]
STRATEGIES = [name for name in search.available() if name != "greedy"]


@pytest.fixture(scope="module", params=HEADS)
def make(request: pytest.FixtureRequest, tiny_folder: Path, renderer: ChatRenderer) -> Make:
    """Build scorers of one model, with a random head; each has read nothing yet."""
    model = with_random_head(tiny_folder, request.param)
    made = manifest(renderer.template_hash, head=request.param, value_reads="state_and_action")
    return lambda: CheckpointScorer("prm", model, made)


@pytest.mark.parametrize("words", [("left", "right", "finish"), ("finish", "pit")])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_task_costs_and_finds_the_same_alone_and_beside_others(
    make: Make, name: str, words: Sequence[str]
) -> None:
    # Tasks with one goal share their prompts. Starts of one task fall into rounds in which others go on.
    tasks = [*corridor.tasks(Split.TEST, 0, 2, length=5), TASK, replace(TASK, id="the same")]

    def run(portion: Sequence[Task]) -> list[search.SearchResult]:
        return search.load(name).search(portion, SeededPolicy(words), make(), LIMITED, budget=14)

    for task, result in zip(tasks, run(tasks), strict=True):
        (alone,) = run([task])
        assert_alike(result, alone)


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_finds_what_reading_from_the_first_token_finds(make: Make, name: str) -> None:
    tasks = corridor.tasks(Split.TEST, 0, 2, length=5)
    growing, scratch = (
        search.load(name).search(tasks, SeededPolicy(("left", "right", "finish")), scorer, LIMITED, budget=14)
        for scorer in (make(), FromScratch(make))
    )
    for a, b in zip(growing, scratch, strict=True):
        assert_alike(replace(a, scorer_tokens=0), replace(b, scorer_tokens=0))
        assert a.scorer_tokens <= b.scorer_tokens


SCRIPT = {
    (): ["right", "left"],
    ("right",): ["right"],
    ("left",): ["finish"],
    ("right", "right"): ["finish"],
}


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        (halving, {"n": 2, "depths": (4,)}),
        (resample, {"n": 2, "margin": 1e9}),
    ],
)
def test_episodes_that_grow_side_by_side_are_read_once_and_their_prompt_once(
    make: Make, strategy: Any, settings: dict[str, Any]
) -> None:
    (result,) = strategy.search([TASK], ScriptedPolicy(SCRIPT), make(), LIMITED, **settings)
    prompt = result.trajectory.prompt_length
    lengths = {text: len(renderer().action_ids(text)) for text in ("right", "left", "finish")}
    (other,) = sample_until_accepted.search(
        [TASK], ScriptedPolicy({**SCRIPT, (): ["right"]}), make(), LIMITED, n=1, threshold=-1e9
    )
    long = other.scorer_tokens  # of right, right, finish, from the first token
    (other,) = sample_until_accepted.search(
        [TASK], ScriptedPolicy({**SCRIPT, (): ["left"]}), make(), LIMITED, n=1, threshold=-1e9
    )
    short = other.scorer_tokens
    assert min(long, short) > prompt > 0 < min(lengths.values())
    assert result.scorer_tokens == long + short - prompt


def test_a_task_that_samples_nothing_in_a_round_costs_the_same_beside_others_that_do() -> None:
    # One simulation a round: if it ends at an action that was sampled before, the task does not call the
    # policy. The task's keys and values would outlive this round if no other task called the policy.
    tasks = corridor.tasks(Split.TEST, 0, 3, length=5)
    model = tiny_model(renderer().tokenizer, size="xs", seed=3)
    scorer = FunctionScorer(lambda task, actions: sum(map(ord, task.id + "".join(actions))) % 97 / 97)

    def costs(portion: Sequence[Task]) -> list[tuple[int, int]]:
        policy = HFPolicy(model, renderer(), revision="r", max_new_tokens=3)
        results = puct.search(portion, policy, scorer, LIMITED, budget=14, m=3, width=1)
        return [(result.policy_tokens, result.sampled_tokens) for result in results]

    assert costs(tasks) == [cost for task in tasks for cost in costs([task])]
