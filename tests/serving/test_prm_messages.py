"""Messages of the scorer ``http`` become the very tokens that the PRM's own process makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import MismatchError
from rlprm.scorers.http import HttpScorer
from rlprm.serving import prm_trajectories
from rlprm.serving.prm_requests import Bounds, RefusedError
from rlprm.serving.prm_trajectories import Trajectories
from rlprm.types import Trajectory
from tests.data import test_thought_structure as thoughts
from tests.data.templates import foreign
from tests.data.test_rerender import EPISODES
from tests.rollouts import test_tool_episodes as calls
from tests.toys.manifests import manifest


class Told:
    """A server that says what it is told to, and answers nothing else."""

    url = "http://there"

    def __init__(self, template: str, **changed: Any) -> None:
        self.told = {
            "template": template,
            "takes_messages": True,
            "limits": {"max_tokens": 10**6},
            "manifest": vars(manifest(template, **changed)),
        }

    def info(self) -> dict[str, Any]:
        return self.told


def scorer(template: str, **changed: Any) -> HttpScorer:
    return HttpScorer("remote", Told(template, **changed))  # type: ignore[arg-type]


def sent(made: Trajectory, renderer: ChatRenderer, **changed: Any) -> Trajectory:
    """The trajectory as a server reads it of the client's request."""
    environment = changed.get("environment", "tests.toys.corridor")
    there = Trajectories(
        renderer.template_hash, Bounds(9, 99, 10**6, 10**6), renderer, environment=environment, end="declared"
    )
    row = scorer(renderer.template_hash, **changed)._messages(made)
    (found,) = there.read(json.dumps({"trajectories": [row]}).encode())[1]
    return found


def assert_the_same(found: Trajectory, expected: Trajectory) -> None:
    assert found.token_ids == expected.token_ids
    assert found.action_mask == expected.action_mask
    assert [(s.start, s.end) for s in found.steps] == [(s.start, s.end) for s in expected.steps]
    assert found.template == expected.template


@pytest.mark.parametrize("name", EPISODES)
def test_episodes_of_text(name: str) -> None:
    made = EPISODES[name]()
    assert_the_same(sent(made, foreign()), Rerenderer(foreign()).render(made))


THINKING: dict[str, Callable[[], Trajectory]] = {
    "thoughts": lambda: thoughts.played(
        thoughts.FREE, (thoughts.SAID, "go left"), ("go on", "go on"), ("<think>\nwhat", "")
    ),
    "a marker in an action": lambda: thoughts.played(
        thoughts.SILENT, ("say </think> aloud", "say </think> aloud")
    ),
}


@pytest.mark.parametrize("name", THINKING)
@pytest.mark.parametrize("to", [thoughts.FREE, thoughts.OPENED])
def test_thoughts_that_are_stored_as_text(name: str, to: str) -> None:
    made, other = THINKING[name](), thoughts.renderer(to)
    if made.template == other.template_hash:
        made = replace(made, template="another")
    assert_the_same(sent(made, other), Rerenderer(other).render(made))


def test_a_forced_end_of_a_thought_and_a_forced_close() -> None:
    made, other = THINKING["thoughts"](), thoughts.renderer(thoughts.OPENED)
    mask, first, last = list(made.action_mask), made.steps[0], made.steps[-1]
    mask[first.start + 3] = 0  # somewhere in the thought; where it was does not count
    mask[last.end] = 0
    made = replace(made, action_mask=tuple(mask))
    expected = Rerenderer(other).render(made)
    assert expected.forced_end(expected.steps[0])
    assert not expected.action_mask[expected.steps[-1].end]
    assert_the_same(sent(made, other), expected)


def test_calls_of_tools_are_those_of_the_prms_environment() -> None:
    made = calls.played("qwen2_5", calls.texts_of("qwen2_5", calls.demonstration()))
    other = calls.renderer("qwen3_6")
    assert_the_same(sent(made, other, environment="textcraft"), Rerenderer(other).render(made))
    with pytest.raises(MismatchError, match=r"calls tools of textcraft .* whose server has those of babyai"):
        scorer(other.template_hash, environment="babyai")._messages(made)
    elsewhere = Trajectories(
        other.template_hash, Bounds(9, 99, 10**6, 10**6), other, environment="elsewhere", end="declared"
    )
    row = scorer(other.template_hash, environment="textcraft")._messages(made)
    with pytest.raises(
        RefusedError, match=r"trajectories\.0\.messages: .* names the environment 'elsewhere'"
    ):
        elsewhere.read(json.dumps({"trajectories": [row]}).encode())


def test_a_call_that_is_written_as_text_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """In this process it is said once, with the name of the task."""
    made = calls.played("qwen2_5", [calls.call('{"action": ["<|im_end|>"]}')])
    other = calls.renderer("lfm2_2_5")
    expected = Rerenderer(other).render(made)
    assert [record.name for record in caplog.records] == ["rlprm.data.rerender"]
    caplog.clear()
    assert_the_same(sent(made, other, environment="textcraft"), expected)
    assert [record.name for record in caplog.records] == ["rlprm.scorers.http"]  # the client, of templates


def test_what_clients_send_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prm_trajectories, "_REMEMBERED", 4_000)
    there = Trajectories(
        foreign().template_hash,
        Bounds(9, 99, 10**6, 10**6),
        foreign(),
        environment="babyai",
        end="declared",
    )
    before = len(foreign()._prompt_shapes)
    for i in range(1, 30):  # prompts of other shapes, since their blanks differ
        talk = [{"role": "user", "content": " " * i * 20}, {"role": "user", "content": "x"}]
        row = {"messages": [*talk, {"role": "assistant", "content": "y"}]}
        there.read(json.dumps({"trajectories": [row]}).encode())
    assert len(foreign()._prompt_shapes) == before
    assert there._used is not None
    assert len(there._used._prompt_shapes) < 20
