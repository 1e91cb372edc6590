"""AgentGym's trajectories: what is learned of them, what is refused, and that ours come back as they went."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprm.data.demonstrations import Demonstration
from rlprm.data.importers.agentgym import (
    digest,
    read_demonstrations,
    require_end,
    require_format,
    to_demonstration,
    to_item,
    with_opening,
    without,
    write_items,
)
from rlprm.data.rendering import ChatRenderer
from rlprm.envs.agentgym import textcraft
from rlprm.envs.agentgym.items import data_index, read_items
from rlprm.errors import ArtifactError, ConfigError, DataError, RlprmError
from rlprm.rollouts.waves import rollout
from rlprm.stages.sft import render, to_dataset
from rlprm.types import End, EpisodeSetting, Message, Split, Task, Trajectory
from tests.data.strategies import json_values, texts
from tests.toys import corridor
from tests.toys.agents import SeededPolicy

ACT = "Thought:\nIt is that way.\n\nAction:\n"


def entry(sender: str, value: str, loss: bool | None = None) -> dict[str, Any]:
    return {"from": sender, "loss": loss, "value": value}


def item(name: str = "textcraft_7", *, losses: tuple[bool | None, ...] = (True, True)) -> dict[str, Any]:
    """A trajectory as AgentTraj has it."""
    conversations = [
        entry("human", "You are given a few recipes."),
        entry("gpt", "OK. I'll follow your instructions and try my best to solve the task.", False),
        entry("human", "Goal: craft stick."),
    ]
    for turn, loss in enumerate(losses, start=1):
        conversations += [entry("gpt", f"{ACT}get {turn} plank", loss), entry("human", f"Got {turn} plank")]
    return {"item_id": name, "conversations": conversations[:-1]}


def user(content: str) -> Message:
    return Message(role="user", content=content)


def reply(content: str) -> Message:
    return Message(role="assistant", content=content)


# --- AgentTraj as demonstrations


def test_an_item_is_a_demonstration_that_begins_with_its_first_learned_message() -> None:
    made = to_demonstration(item(), "textcraft")
    assert made.task == Task("textcraft", "textcraft_7", Split.TRAIN)
    assert made.first_action == 3
    assert made.unlearned == frozenset()
    assert [m["role"] for m in made.messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert made.messages[0] == user("You are given a few recipes.")
    assert made.messages[3] == reply(f"{ACT}get 1 plank")


@pytest.mark.parametrize("silent", [False, None])
def test_only_what_has_loss_true_is_learned(renderer: ChatRenderer, silent: bool | None) -> None:
    given_losses = (silent, True, silent, True, silent)
    made = to_demonstration(item(losses=given_losses), "textcraft")
    assert made.first_action == 5
    assert made.unlearned == {7, 11}
    conversation = render(made, renderer)
    whole = [*renderer.prompt_ids(made.messages[:5])]
    expected = [0] * len(whole)
    for turn, loss in enumerate(given_losses[1:], start=2):
        if turn > 2:
            between = renderer.observation_ids(f"Got {turn - 1} plank")
            whole += between
            expected += [0] * len(between)
        said = renderer.action_ids(f"{ACT}get {turn} plank")
        whole += said
        expected += [int(loss is True)] * len(said)
    assert (conversation.token_ids, conversation.action_mask) == (whole, expected)
    for share in (0.0, 1.0):
        rows, _ = to_dataset([made], renderer, max_length=None, learn_observations=share)
        learned = [label != -100 for label in rows["labels"][0]]
        others = [not acted and not shown for acted, shown in zip(expected, learned, strict=True)]
        if share == 0.0:
            assert learned == [bool(m) for m in expected]
        else:  # everything but the two replies that are not to be learned
            left_out = sum(len(renderer.action_ids(f"{ACT}get {turn} plank")) for turn in (3, 5))
            assert sum(others) == left_out


def test_what_follows_the_last_reply_is_left_out() -> None:
    longer = item()
    longer["conversations"].append(entry("human", "Crafted 1 minecraft:stick"))
    assert to_demonstration(longer, "textcraft") == to_demonstration(item(), "textcraft")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_id": 7}, "is no trajectory: expected a text 'item_id'"),
        ({"conversations": None}, "is no trajectory"),
        ({"conversations": {}}, "is no trajectory"),
        ({"conversations": []}, 'no message has "loss": true'),
        ({"conversations": [entry("human", "a"), entry("gpt", "b", False)]}, 'no message has "loss": true'),
        ({"conversations": ["hello"]}, "message 1: got str, allowed: an object"),
        ({"conversations": [entry("user", "a")]}, "message 1: from: got 'user', allowed: human, gpt, system"),
        ({"conversations": [{"from": "human"}]}, "message 1: value: got None, allowed: text"),
        (
            {"conversations": [entry("human", "a"), {**entry("gpt", "b"), "loss": 1}]},
            "message 2: loss: got 1",
        ),
        ({"conversations": [entry("human", "a", True)]}, "message 1: loss: got true for human"),
        ({"conversations": [entry("gpt", "a", True)]}, "message 1: from: got gpt, allowed: human"),
        (
            {"conversations": [entry("human", "a"), entry("human", "b"), entry("gpt", "c", True)]},
            "message 2: from: got human, allowed: gpt",
        ),
        (
            {"conversations": [entry("human", "a"), entry("system", "b"), entry("gpt", "c", True)]},
            "message 2: from: got system, allowed: gpt",
        ),
    ],
)
def test_other_items_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        to_demonstration({**item(), **change}, "textcraft", "some file, item 3")
    assert str(caught.value).startswith("some file, item 3")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


entries = st.fixed_dictionaries(
    {},
    optional={
        "from": st.sampled_from(["human", "gpt", "system"]) | json_values,
        "value": texts() | json_values,
        "loss": st.sampled_from([None, False, True]) | json_values,
    },
)
anything = st.fixed_dictionaries(
    {},
    optional={
        "item_id": texts() | json_values,
        "conversations": st.lists(entries | json_values) | json_values,
    },
)


@settings(deadline=None)
@given(anything)
def test_anything_is_a_demonstration_or_a_line_of_what_is_wrong(value: dict[str, Any]) -> None:
    wrong = ""
    try:
        made = to_demonstration(value, "textcraft")
    except DataError as error:
        wrong = str(error)
    assert "\n" not in wrong
    if not wrong:
        assert made.messages[made.first_action]["role"] == made.messages[-1]["role"] == "assistant"


@settings(deadline=None)
@given(
    st.booleans(),
    texts(),
    st.lists(st.tuples(texts(), texts(), st.sampled_from([True, False, None])), min_size=1).filter(
        lambda turns: any(loss for _, _, loss in turns)
    ),
)
def test_well_formed_items_are_read_as_they_stand(
    system: bool, prompt: str, turns: list[tuple[str, str, bool | None]]
) -> None:
    conversations = [entry("system", prompt)] if system else []
    for observation, action, loss in turns:
        conversations += [entry("human", observation), entry("gpt", action, loss)]
    made = to_demonstration({"item_id": "a_1", "conversations": conversations}, "a")
    assert [m["content"] for m in made.messages] == [e["value"] for e in conversations]
    learned = {i for i, e in enumerate(conversations) if e["loss"]}
    said = {i for i, m in enumerate(made.messages) if m["role"] == "assistant" and i >= made.first_action}
    assert said - made.unlearned == learned
    assert made.first_action == min(learned)


# --- instructions and formats


def test_instructions_are_replaced_and_only_they() -> None:
    made = to_demonstration(item(losses=(True, False, True)), "textcraft")
    for style in ("none", "short", "agentgym"):
        opening = textcraft.opening(end=End.ON_SUCCESS, style=style)
        other = with_opening(made, opening)
        assert list(other.messages) == [*opening, *made.messages[2:]]
        assert [other.messages[i] for i in sorted(other.unlearned)] == [made.messages[5]]
        assert other.messages[other.first_action] == made.messages[3]
        assert with_opening(other, made.messages[:2]) == made


def test_a_first_exchange_that_is_an_action_is_no_instruction() -> None:
    bare = {"item_id": "a_1", "conversations": item(losses=(False, True))["conversations"][2:]}
    made = to_demonstration(bare, "a")
    assert made.first_action == 3
    assert with_opening(made, []) == made
    assert with_opening(made, [user("x"), reply("OK.")]).messages[2:] == made.messages
    system = {"item_id": "a_1", "conversations": [entry("system", "s"), *bare["conversations"]]}
    assert with_opening(to_demonstration(system, "a"), []) == made


def test_actions_written_in_the_other_format_are_refused() -> None:
    react = [to_demonstration(item(), "textcraft")]
    (first,) = react
    bare = [replace(first, messages=tuple(Message(role=m["role"], content="go") for m in first.messages))]
    require_format(react, "react")
    require_format(react, "react_lenient")
    require_format(bare, "action_only")
    with pytest.raises(ConfigError, match="action_format: got action_only, allowed: react"):
        require_format(react, "action_only")
    for name in ("react", "react_lenient"):
        with pytest.raises(ConfigError, match=f"action_format: got {name}, allowed: action_only, as"):
            require_format(bare, name)
    marked = [
        replace(first, messages=tuple(Message(role=m["role"], content="action: go") for m in first.messages))
    ]
    require_format(marked, "react_lenient")
    with pytest.raises(ConfigError, match="action_format: got react, allowed: react_lenient, as"):
        require_format(marked, "react")


@pytest.mark.parametrize(("form", "action_format"), [("{}", "action_only"), (f"{ACT}{{}}", "react")])
def test_demonstrations_that_end_in_the_other_way_are_refused(form: str, action_format: str) -> None:
    def ending(*actions: str) -> list[Demonstration]:
        task = Task("textcraft", "textcraft_1", Split.TRAIN)
        return [Demonstration(task, (user("Goal"), reply(form.format(a))), 1) for a in actions]

    require_end(ending("finish", "finish", "inventory"), End.DECLARED, action_format)
    require_end(ending("get 1 stick", "craft 1 stick"), End.ON_SUCCESS, action_format)
    with pytest.raises(ConfigError, match="end: got declared, allowed: on_success, as 1 of these 2"):
        require_end(ending("get 1 stick", "finish"), End.DECLARED, action_format)
    with pytest.raises(ConfigError, match="end: got on_success, allowed: declared"):
        require_end(ending("finish"), End.ON_SUCCESS, action_format)


def test_a_digest_tells_contents_apart() -> None:
    made = to_demonstration(item(), "textcraft")
    others = [
        to_demonstration(item(losses=(True, False)), "textcraft"),
        to_demonstration(item("textcraft_8"), "textcraft"),
        with_opening(made, []),
    ]
    assert digest([made]) == digest([to_demonstration(item(), "textcraft")])
    assert len({digest([d]) for d in (made, *others)} | {digest([made, made])}) == 5


# --- files


def as_list(path: Path, items: list[Any]) -> str:
    path.write_text(json.dumps(items, indent=1), encoding="utf-8")
    return str(path)


def as_lines(path: Path, items: list[Any]) -> str:
    path.write_text("\n".join(json.dumps(i, ensure_ascii=False) for i in items) + "\n\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("write", [as_list, as_lines])
def test_the_items_of_an_environment_are_chosen_by_their_ids(
    tmp_path: Path, write: Callable[[Path, list[Any]], str]
) -> None:
    names = ["textcraft_3", "webshop_5238", "textcraft_10", "textcraft_oak_boat-3", "textcrafty_1"]
    source = write(tmp_path / "mixed.json", [item(name) for name in names])
    made = read_demonstrations(source, "rlprm.envs.agentgym.textcraft", "textcraft")
    assert [d.task.id for d in made] == ["textcraft_3", "textcraft_10", "textcraft_oak_boat-3"]
    assert {d.task.environment for d in made} == {"rlprm.envs.agentgym.textcraft"}
    with pytest.raises(
        DataError, match=r"mixed.json holds no item of 'babyai'; it has 'textcraft' \(2\), 'webshop'"
    ):
        read_items(source, "babyai")


def test_eval_items_are_data_indices(tmp_path: Path) -> None:
    """AgentEval has no conversations, and files to run a policy on have empty ones."""
    source = as_list(tmp_path / "textcraft_test.json", [
        {"item_id": "textcraft_401", "conversations": None}, {"item_id": "textcraft_0", "conversations": []},
        {"item_id": "textcraft_401"},
    ])  # fmt: skip
    assert [data_index(where, row) for where, row in read_items(source, "textcraft")] == [401, 0, 401]
    train = as_lines(
        tmp_path / "train.jsonl", [item("textcraft_7"), item("textcraft_7"), item("textcraft_9")]
    )
    made = {
        split: textcraft.tasks(
            split, 0, 2, server="http://h:1", data_indices={"train": train, "test": [source, "500-510"]}
        )
        for split in (Split.TRAIN, Split.TEST)
    }
    assert [t.id for t in made[Split.TRAIN]] == ["textcraft_7", "textcraft_9"]
    assert [t.spec["data_idx"] for t in made[Split.TEST]] == [401, 0]
    with pytest.raises(DataError, match=r"textcraft_test\.json, item 1 is no trajectory"):
        read_demonstrations(source, "textcraft", "textcraft")
    nameless = as_list(tmp_path / "nameless.json", [{"item_id": "textcraft_oak"}])
    with pytest.raises(
        DataError, match="item_id: got 'textcraft_oak', allowed: a name, an underscore and a num"
    ):
        textcraft.tasks(Split.TEST, 0, 1, server="http://h:1", data_indices={"test": nameless})


def test_demonstrations_are_left_out_by_the_data_index_at_the_end_of_their_ids() -> None:
    names = ["textcraft_3", "textcraft_003", "textcraft_30", "textcraft_oak_boat-3", "textcraft_oak", "x_5"]
    made = [to_demonstration(item(name), "textcraft") for name in names]
    assert [d.task.id for d in without(made, {3, 5})] == names[2:5]
    assert without(made, set()) == made


def test_a_folder_is_what_the_hub_has(tmp_path: Path) -> None:
    as_list(tmp_path / "textcraft_train.json", [item("textcraft_1")])
    as_list(tmp_path / "textcraft_test.json", [{"item_id": "textcraft_2"}])
    as_list(tmp_path / "babyai_train.json", [item("babyai_3")])
    assert [row["item_id"] for _, row in read_items(str(tmp_path), "textcraft")] == [
        "textcraft_1",
        "textcraft_2",
    ]
    with pytest.raises(ArtifactError, match=r"none of the files webshop_train\.json, webshop_test\.json"):
        read_items(str(tmp_path), "webshop")


def in_the_hubs_cache(folder: Path, name: str, files: dict[str, list[Any]]) -> None:
    """Lay files down as ``huggingface_hub`` keeps what it downloaded."""
    home = folder / f"datasets--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text("a" * 40)
    snapshot = home / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for file, items in files.items():
        as_list(snapshot / file, items)


def test_a_hub_id_is_read_through_the_hubs_own_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    in_the_hubs_cache(tmp_path, "AgentGym/AgentTraj-L", {"textcraft_train.json": [item("textcraft_5")]})
    in_the_hubs_cache(tmp_path, "AgentGym/AgentEval", {"textcraft_test.json": [{"item_id": "textcraft_6"}]})
    (made,) = read_demonstrations("AgentGym/AgentTraj-L", "textcraft", "textcraft")
    assert made == to_demonstration(item("textcraft_5"), "textcraft")
    indices = {"train": "AgentGym/AgentTraj-L", "test": "AgentGym/AgentEval"}
    (task,) = textcraft.tasks(Split.TEST, 0, 1, server="http://h:1", data_indices=indices)
    assert task.id == "textcraft_6"
    for source, name in (
        ("AgentGym/AgentTraj-L", "webshop"),
        ("AgentGym/Nothing", "textcraft"),
        ("a/..", "babyai"),
    ):
        with pytest.raises(ArtifactError) as caught:
            read_items(source, name)
        assert source in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no item of 'a'; it has none at all"),
        (b"[]", "holds no item of 'a'; it has none at all"),
        (b"[{", "is not JSON"),
        (b'{"item_id": "a_1"}\n{"item_id": \n', ", line 2 is not JSON"),
        (b"[1, 2]", ", item 1 is no item: expected an object with a text 'item_id', got 1"),
        (b'{"conversations": []}', ", line 1 is no item"),
        (b'[{"item_id": 5}]', ", item 1 is no item"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b'[{"item_id": "nothing"}]', "it has '' (1)"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RlprmError) as caught:
        read_items(str(tmp_path / "x.json"), "a")
    assert message in str(caught.value)
    assert "x.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match="no file or folder"):
        read_items(str(tmp_path / "y.json"), "a")


@settings(deadline=None)
@given(st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()))
def test_any_file_is_items_or_a_line_of_what_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_bytes(content)
    wrong = "one line"
    try:
        read_items(str(file), "a")
    except DataError as error:
        wrong = str(error)
    assert len(wrong.split("\n")) == 1


# --- ours in its format


def trajectories(prompt: str, count: int = 12) -> list[Trajectory]:
    tasks = corridor.tasks(Split.TRAIN, 0, count)
    policy = SeededPolicy(("left", "right", "finish", 'say "ü\u2028"'))
    return rollout([(task, 0) for task in tasks], policy, EpisodeSetting(prompt=prompt))


@pytest.mark.parametrize("prompt", ["none", "short"])
def test_a_trajectory_comes_back_as_it_went(tmp_path: Path, renderer: ChatRenderer, prompt: str) -> None:
    made = trajectories(prompt)
    write_items(tmp_path / "out.json", made)
    read = read_demonstrations(str(tmp_path / "out.json"), "tests.toys.corridor", "corridor")
    assert len(read) == len(made)
    for demonstration, trajectory in zip(read, made, strict=True):
        assert trajectory.messages[-1]["role"] == "user"
        assert demonstration.messages == trajectory.messages[:-1]
        assert demonstration.messages[demonstration.first_action]["content"] == trajectory.steps[0].action
        conversation = render(demonstration, renderer)
        assert tuple(conversation.token_ids) == trajectory.token_ids
        assert tuple(conversation.action_mask) == trajectory.action_mask
        assert not demonstration.unlearned


def test_what_is_written_is_agentgyms_format(tmp_path: Path) -> None:
    (made,) = trajectories("none", 1)
    write_items(tmp_path / "out.json", [made, made])
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert rows[0] == rows[1] == to_item(made)
    assert list(rows[0]) == ["item_id", "conversations", "reward", "success"]
    assert rows[0]["item_id"] == "corridor_train-0"
    assert [(e["from"], e["loss"]) for e in rows[0]["conversations"][:2]] == [("human", None), ("gpt", True)]
    opened = to_item(trajectories("short", 1)[0])["conversations"]
    assert [(e["from"], e["loss"]) for e in opened[:3]] == [("system", None), ("human", None), ("gpt", True)]


def test_words_put_into_the_agents_mouth_are_not_to_be_learned() -> None:
    (made,) = trajectories("none", 1)
    told = replace(made, messages=(user("Walk."), reply("OK."), *made.messages))
    assert [e["loss"] for e in to_item(told)["conversations"][:4]] == [None, False, None, True]
    served = replace(told, task=Task("rlprm.envs.agentgym.textcraft", "textcraft_7", Split.TRAIN))
    assert to_item(served)["item_id"] == "textcraft_7"
    back = to_demonstration(to_item(served), "textcraft")
    assert isinstance(back, Demonstration)
    assert back.messages == told.messages[:-1]


def test_a_trajectory_without_actions_has_no_such_form() -> None:
    (made,) = trajectories("none", 1)
    with pytest.raises(DataError, match="a trajectory without a step"):
        to_item(replace(made, steps=(), messages=made.messages[:1]))
    with pytest.raises(DataError, match="do not hold its"):
        to_item(replace(made, messages=made.messages[:1]))


@pytest.mark.parametrize("source", ["~no-such-user/x", "x" * 5_000, "a\x00b"])
def test_what_cannot_be_a_path_is_one_line(source: str) -> None:
    with pytest.raises(ConfigError, match=r"agentgym data: got .*cannot be a path here"):
        read_items(source, "textcraft")
