"""Best of k at each step, worked by hand: actions are scored before they are carried out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlprm.data.conversation import Conversation
from rlprm.errors import ConfigError
from rlprm.policies.base import Completion
from rlprm.scorers.transcript import Transcript
from rlprm.search import beam, sample_until_accepted, step_best_of_k
from rlprm.types import End, EpisodeSetting, Split, StopReason, Task
from tests.toys import corridor
from tests.toys.agents import FunctionScorer, ScriptedPolicy, SeededPolicy, renderer, table_scorer

TASK = Task("tests.toys.corridor", "by-hand", Split.TEST, {"goal": 1, "length": 4, "budget": None})
SETTING = EpisodeSetting(end=End.DECLARED, round_limit=5)
SCRIPT = {(): ["left", "right", " right "], ("right",): ["finish", "right", "pit"]}
TABLE = {
    ("left",): 0.2,
    ("right",): 0.6,
    ("right", "finish"): 0.9,
    ("right", "right"): 0.4,
    ("right", "pit"): 0.1,
}


def test_the_best_action_of_each_turn_is_carried_out_and_no_other() -> None:
    policy, scorer = ScriptedPolicy(SCRIPT), table_scorer(TABLE)
    (result,) = step_best_of_k.search([TASK], policy, scorer, SETTING, k=3)
    assert [step.action for step in result.trajectory.steps] == ["right", "finish"]
    assert (result.env_steps, result.score) == (2, 0.9)
    assert result.trajectory.outcome.success
    assert policy.calls == [3, 3]
    assert scorer.seen == [
        ("left",),
        ("right",),
        ("right", "finish"),
        ("right", "right"),
        ("right", "pit"),
    ]
    executed = [(node.actions, node.samples, node.rank) for node in result.nodes if node.executed]
    assert executed == [(("right",), 2, 0.6), (("finish",), 1, 0.9)]
    lengths = {text: len(renderer().action_ids(text)) for text in ("left", "right", "finish", "pit")}
    assert (
        result.sampled_tokens == lengths["left"] + 3 * lengths["right"] + lengths["finish"] + lengths["pit"]
    )


def test_the_episode_is_scored_without_the_answer_to_its_newest_action() -> None:
    seen: list[int] = []

    class Reader(FunctionScorer):
        def score(self, trajectories):  # type: ignore[no-untyped-def]
            seen.extend(sum(m["role"] == "user" for m in t.messages) - len(t.steps) for t in trajectories)
            return super().score(trajectories)

    step_best_of_k.search([TASK], SeededPolicy(), Reader(lambda *_: 0.5), SETTING, k=2)
    assert set(seen) == {0}  # the first observation and one answer for each action but the newest


def test_an_action_that_fails_ends_the_search_without_a_score() -> None:
    script = {(): ["crash", "right"], ("right",): ["finish"]}
    table = {("crash",): 0.9, ("right",): 0.2}
    (result,) = step_best_of_k.search([TASK], ScriptedPolicy(script), table_scorer(table), SETTING, k=2)
    assert result.trajectory.stop is StopReason.ERROR
    assert (result.score, result.env_steps) == (None, 1)


def test_it_finds_what_a_beam_of_one_finds_at_a_part_of_the_steps() -> None:
    def value(task: Task, history: tuple[str, ...]) -> float:
        return sum(map(ord, "".join((task.id, *history)))) % 97 / 97

    for task in corridor.tasks(Split.TEST, 0, 6):
        policy = SeededPolicy(("right", "left", "wait"))  # no action ends the episode before the limit
        (a,) = step_best_of_k.search([task], policy, FunctionScorer(value), SETTING, k=4)
        (b,) = beam.search([task], policy, FunctionScorer(value), SETTING, n=1, m=4)
        chosen = [node.actions for node in b.nodes if node.kept][:4]
        assert [node.actions for node in a.nodes if node.executed][:4] == chosen
        assert a.env_steps == 5 < b.env_steps
        assert a.sampled_tokens == b.sampled_tokens


def _value(task: Task, history: tuple[str, ...]) -> float:
    return sum(map(ord, "".join((task.id, *history)))) % 97 / 97


def _shown(first: str, turns: Sequence[tuple[str, str]]) -> list[float]:
    """Return 1 for a declared end after a step to the right; a rule for tests, not the outcome."""
    actions = [action for action, _ in turns]
    return [float(action == "finish" and "right" in actions[:t]) for t, action in enumerate(actions)]


class _OneAfterAnother(ScriptedPolicy):
    """Takes the lines of a context in turn over all calls."""

    def act(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[Completion]:
        found = []
        for conversation in conversations:
            lines = self.script[tuple(step.action for step in conversation.steps)]
            found.append(self._completion(lines[0]))
            lines.append(lines.pop(0))  # type: ignore[attr-defined]
        return found


@pytest.mark.parametrize("accept", ["scorer", "transcript"])
def test_with_one_action_a_turn_it_is_sampling_until_acceptance(
    accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corridor, "read_transcript", _shown, raising=False)
    lengths = set()
    for task in corridor.tasks(Split.TEST, 0, 12):
        policy, scorer = SeededPolicy(), FunctionScorer(_value)
        (a,) = step_best_of_k.search([task], policy, scorer, SETTING, k=1, n=5, accept=accept, threshold=0.5)
        accepting = scorer if accept == "scorer" else Transcript("tests.toys.corridor")
        (b,) = sample_until_accepted.search([task], policy, accepting, SETTING, n=5, threshold=0.5)
        if b.score is not None and b.score >= 0.5 and b.trajectory.stop is StopReason.DECLARED:
            assert a.trajectory.token_ids == b.trajectory.token_ids
            assert (a.env_steps, a.sampled_tokens) == (b.env_steps, b.sampled_tokens)
            lengths.add(len([node for node in a.nodes if node.parent is None]))
    assert len(lengths) > 1  # some tasks need one episode, some need more


def test_another_episode_starts_unless_the_finished_one_is_accepted() -> None:
    # Episode 0: right .6 beats left .2, then finish .4 is below the threshold. Episode 1: left .2 alone, then
    # finish .7 is accepted. Two steps each, and the third episode is never started.
    script = {(): ["left", "right", "left", "left"], ("right",): ["finish"] * 2, ("left",): ["finish"] * 2}
    table = {("left",): 0.2, ("right",): 0.6, ("right", "finish"): 0.4, ("left", "finish"): 0.7}
    (result,) = step_best_of_k.search(
        [TASK], _OneAfterAnother(script), table_scorer(table), SETTING, k=2, n=3, threshold=0.5
    )
    assert [step.action for step in result.trajectory.steps] == ["left", "finish"]
    assert (result.env_steps, result.score) == (4, 0.7)


def test_without_an_accepted_episode_the_best_one_is_returned() -> None:
    script = {(): ["right", "left"], ("right",): ["finish"], ("left",): ["finish"]}
    table = {("left",): 0.2, ("right",): 0.6, ("right", "finish"): 0.3, ("left", "finish"): 0.4}
    (result,) = step_best_of_k.search(
        [TASK], _OneAfterAnother(script), table_scorer(table), SETTING, k=1, n=2, threshold=0.9
    )
    assert ([step.action for step in result.trajectory.steps], result.score) == (["left", "finish"], 0.4)


@pytest.mark.parametrize(
    "settings", [{"n": 0}, {"k": 0}, {"accept": "nobody"}, {"threshold": float("nan")}, {"budget": 0}]
)
def test_wrong_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        step_best_of_k.search([TASK], SeededPolicy(), FunctionScorer(_value), SETTING, **settings)


def test_an_environment_without_the_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="no read_transcript"):
        step_best_of_k.search(
            [TASK], SeededPolicy(), FunctionScorer(_value), SETTING, n=2, accept="transcript"
        )
