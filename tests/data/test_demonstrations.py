"""Experts solve tasks; what they cannot solve is told, in its place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlprm.data.demonstrations import Demonstration, demonstrate, demonstrate_all
from rlprm.errors import DemonstrationError
from rlprm.types import End, Split, Task
from tests.toys import corridor


def task(goal: int) -> Task:
    return replace(corridor.tasks(Split.TRAIN, goal, 1)[0], spec={"goal": goal, "length": 4, "budget": None})


def solve(goal: int, **changes: object) -> Demonstration:
    settings: dict[str, object] = {"end": End.DECLARED, "prompt": "none", "action_format": "action_only"}
    made = demonstrate(task(goal), **{**settings, **changes})  # type: ignore[arg-type]
    assert made is not None
    return made


def test_a_demonstration_ends_with_the_last_action() -> None:
    made = solve(2)
    assert [(m["role"], m["content"]) for m in made.messages] == [
        ("user", "The goal is cell 2. You are in cell 0."),
        ("assistant", "right"),
        ("user", "You are in cell 1."),
        ("assistant", "right"),
        ("user", "You are in cell 2."),
        ("assistant", "finish"),
    ]
    assert made.first_action == 1
    assert made.task == task(2)


def test_opening_and_format_are_those_asked_for() -> None:
    made = solve(1, prompt="short", action_format="react", end=End.ON_SUCCESS)
    assert [m["role"] for m in made.messages] == ["system", "user", "assistant"]
    assert made.messages[made.first_action]["content"].endswith("Action:\nright")


def test_a_thought_stands_before_each_action(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        corridor, "explain", lambda task, actions: [f"why {a}?" for a in actions], raising=False
    )
    made = solve(1, action_format="react", thoughts=True)
    assert [m["content"] for m in made.messages if m["role"] == "assistant"] == [
        "Thought:\nwhy right?\n\nAction:\nright",
        "Thought:\nwhy finish?\n\nAction:\nfinish",
    ]


def test_a_task_the_expert_fails_is_none_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    expert = corridor.demonstrate

    def give_up_on_two(of: Task, *, end: End) -> list[str]:
        if of.spec["goal"] == 2:
            raise DemonstrationError("too far")
        return expert(of, end=end)

    monkeypatch.setattr(corridor, "demonstrate", give_up_on_two)
    made = demonstrate_all(
        [task(1), task(2), task(3)], end=End.DECLARED, prompt="none", action_format="action_only", workers=1
    )
    assert [d and d.task.spec["goal"] for d in made] == [1, None, 3]


def test_an_experts_bug_is_not_taken_for_a_task_it_cannot_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corridor, "demonstrate", lambda of, end: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        solve(1)


def test_several_processes_give_the_same_in_the_same_order() -> None:
    tasks = corridor.tasks(Split.TRAIN, 0, 40)

    def run(workers: int) -> list[Demonstration | None]:
        setting = {"end": End.DECLARED, "prompt": "short", "action_format": "action_only"}
        return list(demonstrate_all(tasks, workers=workers, **setting))  # type: ignore[arg-type]

    assert run(2) == run(1)
