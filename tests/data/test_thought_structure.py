"""Markers of thoughts come from the structure of a message: in demonstrations and when rendered again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from rlprm.data.conversation import Conversation
from rlprm.data.importers.agentgym import to_demonstration, to_item
from rlprm.data.rendering import ChatRenderer
from rlprm.data.rerender import Rerenderer
from rlprm.errors import DataError
from rlprm.stages.sft import render, to_dataset
from rlprm.types import Message, Trajectory
from tests.data import hub_templates as hub
from tests.toys.trajectories import trajectory

FREE, OPENED, SILENT = "qwen3", "qwen3_6", "qwen2_5"
SAID = "<think>\nleft is near\n</think>\n\ngo left"


@cache
def renderer(name: str) -> ChatRenderer:
    return ChatRenderer(hub.tokenizer_of(name))


def text(name: str, ids: Sequence[int]) -> str:
    return str(renderer(name).tokenizer.decode(list(ids)))


def markers(name: str, ids: Sequence[int]) -> list[str]:
    wanted = renderer(name).tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    return [text(name, [i]) for i in ids if i in wanted]


@pytest.mark.parametrize(
    ("name", "written", "found"),
    [
        (FREE, "<think>\nleft is near\n</think>\n\ngo left<|im_end|>", ["<think>", "</think>"]),
        (OPENED, "left is near\n</think>\n\ngo left<|im_end|>", ["</think>"]),
        ("glm4moe", "\n<think>left is near</think>\ngo left<|user|>", ["<think>", "</think>"]),
    ],
)
def test_a_thought_gets_the_markers_of_the_template(name: str, written: str, found: list[str]) -> None:
    message = Message(role="assistant", content="go left", thought="left is near")
    ids = renderer(name).message_ids(message)
    assert text(name, ids) == written
    assert markers(name, ids) == found
    assert renderer(name).without_thought(renderer(name).action_text(ids)) == "go left"


@pytest.mark.parametrize("name", [FREE, OPENED])
def test_what_a_thought_and_an_action_say_is_never_a_marker(name: str) -> None:
    plain = Message(role="assistant", content="go", thought="why")
    forged = Message(role="assistant", content="a </think> b <|im_end|>", thought="c <think> d </think> e")
    ids = renderer(name).message_ids(forged)
    assert markers(name, ids) == markers(name, renderer(name).message_ids(plain))
    assert "c <think> d </think> e" in text(name, ids)
    # As text alone, nothing is a marker.
    as_text = renderer(name).message_ids(Message(role="assistant", content=SAID))
    assert as_text == renderer(name).action_ids(SAID)
    assert markers(name, as_text) == markers(name, renderer(name).action_ids("go"))


def test_a_template_that_does_not_think_writes_a_thought_as_text() -> None:
    message = Message(role="assistant", content="go left", thought="left is near")
    ids = renderer(SILENT).message_ids(message)
    assert text(SILENT, ids) == f"{SAID}<|im_end|>"
    assert ids == renderer(SILENT).action_ids(SAID)


def item(*replies: str) -> dict[str, object]:
    conversation = []
    for reply in replies:
        conversation += [{"from": "human", "loss": None, "value": "You see a door."}]
        conversation += [{"from": "gpt", "loss": True, "value": reply}]
    return {"item_id": "corridor_1", "conversations": conversation}


def test_the_importer_splits_thoughts_off_and_they_are_learned() -> None:
    demonstration = to_demonstration(item(SAID, "say </think> aloud", "stop"), "tests.toys.corridor")
    said = [m for m in demonstration.messages if m["role"] == "assistant"]
    assert said[0] == Message(role="assistant", content="go left", thought="left is near")
    assert said[1] == Message(role="assistant", content="say </think> aloud")
    conversation = render(demonstration, renderer(FREE))
    step = conversation.steps[0]
    ids = conversation.token_ids[step.start : step.end + 1]
    assert markers(FREE, ids) == ["<think>", "</think>"]
    dataset, dropped = to_dataset([demonstration], renderer(FREE), max_length=None)
    assert dropped == 0
    assert dataset[0]["labels"][step.start : step.end + 1] == ids
    later = conversation.steps[1]
    assert markers(FREE, conversation.token_ids[later.start : later.end + 1]) == []


def played(name: str, *messages: tuple[str, str]) -> Trajectory:
    """An episode of (message, action) whose messages are stored as one text each."""
    talk = Conversation(renderer(name), [Message(role="user", content="You see a door.")])
    for said, action in messages:
        ids = [
            *renderer(name).tokenizer(said, add_special_tokens=False)["input_ids"],
            talk.renderer.closing_id,
        ]
        talk.act(ids, [-1.0] * len(ids))
        talk.record(action, 0.0)
        talk.observe("You see a door.")
    length = talk.steps[-1].end + 1
    return trajectory(
        "",
        messages=tuple(talk.messages),
        token_ids=tuple(talk.token_ids[:length]),
        action_mask=tuple(talk.action_mask[:length]),
        logprobs=tuple(talk.logprobs[:length]),
        steps=tuple(talk.steps),
        template=renderer(name).template_hash,
    )


def actions_of(name: str, made: Trajectory) -> list[str]:
    return [text(name, made.token_ids[step.start : step.end + 1]) for step in made.steps]


def test_thoughts_are_rendered_again_where_the_other_template_thinks() -> None:
    made = played(FREE, (SAID, "go left"), ("go on", "go on"), ("<think>\nwhat", ""))
    there = Rerenderer(renderer(OPENED)).render(made)
    assert actions_of(OPENED, there) == [
        "left is near\n</think>\n\ngo left<|im_end|>",
        "\n</think>\n\ngo on<|im_end|>",
        "what<|im_end|>",  # a thought that was cut is not ended
    ]
    assert there.template == renderer(OPENED).template_hash
    opened = played(OPENED, ("left is near\n</think>\n\ngo left", "go left"))
    back = Rerenderer(renderer(FREE)).render(opened)
    assert actions_of(FREE, back) == [f"{SAID}<|im_end|>"]
    assert markers(FREE, back.token_ids[back.steps[0].start :]) == ["<think>", "</think>"]


def test_a_marker_that_was_read_as_text_is_text() -> None:
    made = played(SILENT, ("say </think> aloud", "say </think> aloud"))
    there = Rerenderer(renderer(FREE)).render(made)
    assert actions_of(FREE, there) == ["say </think> aloud<|im_end|>"]
    assert markers(FREE, there.token_ids[there.steps[0].start :]) == []


def test_a_forced_end_has_mask_0_in_the_other_template_too() -> None:
    made = played(FREE, (SAID, "go left"))
    around = renderer(FREE).thoughts
    assert not isinstance(around, str)
    ids, step = made.token_ids, made.steps[0]
    start = next(i for i in range(step.start, step.end) if ids[i : i + len(around.end_ids)] == around.end_ids)
    mask = list(made.action_mask)
    mask[start : start + len(around.end_ids)] = [0] * len(around.end_ids)
    there = Rerenderer(renderer(OPENED)).render(replace(made, action_mask=tuple(mask)))
    forced = there.forced_end(there.steps[0])
    assert text(OPENED, there.token_ids[forced.start : forced.stop]) == "\n</think>\n\n"
    assert sum(there.action_mask) == len(there.token_ids) - there.prompt_length - len(forced)


def test_thoughts_are_refused_where_the_other_template_does_not_think() -> None:
    made = played(FREE, (SAID, "go left"))
    with pytest.raises(
        DataError, match=r"has thoughts, .* because the chat template does not think"
    ) as raised:
        Rerenderer(renderer(SILENT)).render(made)
    assert "\n" not in str(raised.value)
    cut = played(FREE, ("<think>\nwhat", ""))
    assert actions_of(SILENT, Rerenderer(renderer(SILENT)).render(cut)) == ["<think>\nwhat<|im_end|>"]


def test_a_stored_thought_is_exported_and_imported_as_it_was() -> None:
    made = played(FREE, (SAID, "go left"))
    (_, entry) = to_item(made)["conversations"]
    assert entry["value"] == SAID
    structured = (made.messages[0], Message(role="assistant", content="go left", thought="left is near"))
    (_, entry) = to_item(replace(made, messages=structured))["conversations"]
    assert entry["value"] == SAID
