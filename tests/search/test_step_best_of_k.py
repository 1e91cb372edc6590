"""Best of k at each step, worked by hand: actions are scored before they are carried out."""

from __future__ import annotations

from rlprm.search import beam, step_best_of_k
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
