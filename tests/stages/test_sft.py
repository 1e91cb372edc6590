"""Demonstrations are learned in exactly the tokens a rollout would store, and training leaves a policy."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from rlprm.data.demonstrations import Demonstration, demonstrate, demonstrate_all
from rlprm.data.importers.agentgym import write_items
from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ConfigError, DataError, MismatchError
from rlprm.models.loading import load_causal_lm, load_tokenizer, revision_of
from rlprm.policies.hf import HFPolicy
from rlprm.rollouts.waves import rollout
from rlprm.runtime.config import parse
from rlprm.runtime.record import read_record
from rlprm.stages import sft
from rlprm.stages.settings import SFTStageConfig
from rlprm.stages.sft import render, to_dataset
from rlprm.types import End, EpisodeSetting, Split, Task
from tests.toys import corridor
from tests.toys.agents import ScriptedPolicy, SeededPolicy


def demonstrations(
    count: int = 6, prompt: str = "short", action_format: str = "action_only"
) -> list[Demonstration]:
    tasks = corridor.tasks(Split.TRAIN, 0, count, length=5)
    made = [demonstrate(t, end=End.DECLARED, prompt=prompt, action_format=action_format) for t in tasks]
    assert len({len(d.messages) for d in made if d}) > 1
    return [d for d in made if d is not None]


@pytest.mark.parametrize("action_format", ["action_only", "react"])
def test_a_demonstration_has_the_tokens_of_a_rollout_with_the_same_actions(
    renderer: ChatRenderer, action_format: str
) -> None:
    for demonstration in demonstrations(action_format=action_format):
        said = [m["content"] for m in demonstration.messages if m["role"] == "assistant"]
        actions = corridor.demonstrate(demonstration.task, end=End.DECLARED)
        policy = ScriptedPolicy({tuple(actions[:t]): [line] for t, line in enumerate(said)})
        setting = EpisodeSetting(prompt="short", action_format=action_format)
        (rolled,) = rollout([(demonstration.task, 0)], policy, setting)
        assert rolled.outcome.success
        rendered = render(demonstration, renderer)
        assert tuple(rendered.token_ids) == rolled.token_ids
        assert tuple(rendered.action_mask) == rolled.action_mask
        assert [(s.start, s.end) for s in rendered.steps] == [(s.start, s.end) for s in rolled.steps]
        assert tuple(rendered.messages) == rolled.messages[:-1]


def test_only_actions_are_learned_unless_observations_are_asked_for(renderer: ChatRenderer) -> None:
    made = demonstrations()
    only, dropped = to_dataset(made, renderer, max_length=None)
    both, _ = to_dataset(made, renderer, max_length=None, learn_observations=1.0)
    assert (len(only), dropped) == (len(made), 0)
    for row, everything, demonstration in zip(only, both, made, strict=True):
        conversation = render(demonstration, renderer)
        assert row["input_ids"] == everything["input_ids"] == everything["labels"] == conversation.token_ids
        learned = [token for token in row["labels"] if token != -100]
        said = [m["content"] for m in demonstration.messages if m["role"] == "assistant"]
        assert renderer.tokenizer.decode(learned) == "".join(line + "<|im_end|>" for line in said)
        kept = [label in (-100, token) for label, token in zip(row["labels"], row["input_ids"], strict=True)]
        assert all(kept)


def test_a_share_of_the_observations_is_learned_beside_all_actions(renderer: ChatRenderer) -> None:
    made = demonstrations() * 40
    rows, _ = to_dataset(made, renderer, max_length=None, learn_observations=0.2, seed=1)
    again, _ = to_dataset(made, renderer, max_length=None, learn_observations=0.2, seed=1)
    other, _ = to_dataset(made, renderer, max_length=None, learn_observations=0.2, seed=2)
    assert rows["labels"] == again["labels"]
    assert rows["labels"] != other["labels"]
    acted = [a for d in made for a in render(d, renderer).action_mask]
    learned = [label != -100 for row in rows["labels"] for label in row]
    assert all(is_learned for is_learned, a in zip(learned, acted, strict=True) if a)
    others = [is_learned for is_learned, a in zip(learned, acted, strict=True) if not a]
    assert 0.17 < sum(others) / len(others) < 0.23


def test_demonstrations_that_are_too_long_are_counted_not_cut(renderer: ChatRenderer) -> None:
    made = demonstrations()
    lengths = [len(render(d, renderer)) for d in made]
    limit = sorted(set(lengths))[-2]
    rows, dropped = to_dataset(made, renderer, max_length=limit)
    assert dropped == lengths.count(max(lengths)) > 0
    assert [len(row["input_ids"]) for row in rows] == [n for n in lengths if n <= limit]
    with pytest.raises(DataError, match="no demonstration fits into 7 tokens"):
        to_dataset(made, renderer, max_length=7)


ARGUMENTS = {
    "environment": "tests.toys.corridor",
    "env_kwargs.length": 5,
    "prompt": "short",
    "size": "xs",
    "vocab_size": 300,
    "context_length": 160,
    "num_demonstrations": 12,
    "workers": 1,
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": "1e-2",
    "use_cpu": True,
    "disable_tqdm": True,
}


def config(output: Path, **changes: object) -> SFTStageConfig:
    settings = {**ARGUMENTS, "output_dir": output, **changes}
    return parse(SFTStageConfig, [f"--{name}={value}" for name, value in settings.items()])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A policy after two steps of training, and the batches it was trained on with their losses."""
    batches: list[dict[str, Any]] = []

    class Watched(sft.LearnedTokensTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            with torch.no_grad():
                logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            loss = super().training_step(model, inputs, *rest)
            batches.append({**inputs, "logits": logits, "loss": loss})
            return loss

    folder = tmp_path_factory.mktemp("sft") / "policy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "LearnedTokensTrainer", Watched)
        sft.run(config(folder))
    return folder, batches


def test_the_trainer_learns_the_actions_and_nothing_else(
    trained: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, batches = trained
    tokenizer = load_tokenizer(str(folder))
    assert len(batches) == 2
    for batch in batches:
        for ids, labels, mask in zip(
            batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
        ):
            learned = tokenizer.decode(labels[labels != -100])
            said = tokenizer.decode(ids[mask.bool()])
            turns = [turn.split("<|im_end|>")[0] for turn in said.split("<|im_start|>assistant\n")[1:]]
            assert learned == "".join(turn + "<|im_end|>" for turn in turns)
            assert turns[-1] == "finish"
        # The loss is the mean over those tokens, each predicted from what stands before it.
        targets = batch["labels"][:, 1:].reshape(-1)
        expected = cross_entropy(batch["logits"][:, :-1].reshape(len(targets), -1), targets)
        assert batch["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_training_leaves_a_policy_that_can_act(trained: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = trained
    renderer = ChatRenderer(load_tokenizer(str(folder)))
    policy = HFPolicy(
        load_causal_lm(str(folder)), renderer, revision=revision_of(str(folder)), max_new_tokens=4
    )
    assert policy.context_length == 160
    (made,) = rollout([(corridor.tasks(Split.TRAIN, 0, 1)[0], 0)], policy, EpisodeSetting(round_limit=2))
    assert len(made.steps) == 2
    # What is stored agrees with what training saw.
    _, batches = trained
    prompt = renderer.prompt_ids([{"role": "system", "content": "Walk to the goal."}])[:-2]
    assert batches[0]["input_ids"][0].tolist()[: len(prompt)] == prompt


@pytest.mark.parametrize(
    ("cores", "local", "tasks", "started"),
    [
        (64, None, 2000, 64),
        (64, "8", 2000, 8),
        (4, "8", 2000, 1),
        (64, None, 40, 3),
        (None, None, 40, 1),
    ],
)
def test_the_processes_of_a_launch_share_the_cores_and_start_no_idle_experts(
    cores: int | None, local: str | None, tasks: int, started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def spy(of: Sequence[Task], *, workers: int, **options: Any) -> Iterator[Demonstration | None]:
        seen.append(workers)
        return demonstrate_all(of[:1], workers=1, **options)

    monkeypatch.setattr(sft, "demonstrate_all", spy)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    for workers in (0, 5):
        sft.collect_demonstrations(config(Path("unused"), num_demonstrations=tasks, workers=workers))
    assert seen == [started, 5]


def test_training_leaves_a_record_and_is_reused(
    trained: tuple[Path, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, _ = trained
    record = read_record(folder)
    assert record["stage"] == "sft"
    assert record["results"]["demonstrations"] == 12
    assert record["results"]["too_long"] == record["results"]["expert_failures"] == 0
    assert record["config"]["learning_rate"] == 1e-2
    assert record["config"]["max_length"] == 160
    json.dumps(record)
    monkeypatch.setattr(sft, "collect_demonstrations", lambda _: pytest.fail("trained again"))
    with caplog.at_level(logging.INFO):
        sft.run(config(folder))
        sft.run(config(folder, workers=2))
    assert "reusing it" in caplog.text
    with pytest.raises(MismatchError, match=r"learning_rate: 0\.01 there, 0\.02 now"):
        sft.run(config(folder, learning_rate="2e-2"))


def test_a_policy_is_tuned_further_with_its_own_tokenizer(
    trained: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = trained
    sft.run(config(tmp_path / "further", model=folder, max_length=160, max_steps=1))
    record = read_record(tmp_path / "further")
    assert record["config"]["base"] == revision_of(str(folder))
    assert revision_of(str(tmp_path / "further")) != revision_of(str(folder))
    renderers = [ChatRenderer(load_tokenizer(str(f))) for f in (folder, tmp_path / "further")]
    assert len({renderer.template_hash for renderer in renderers}) == 1


@pytest.mark.parametrize("rank", [0, 4])
def test_a_killed_run_goes_on_to_the_same_policy(
    trained: tuple[Path, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    folder, _ = trained
    settings: dict[str, object] = {
        "model": folder, "max_length": 160, "lora_r": rank, "lora_dropout": 0.1 if rank else 0.0,
        "max_steps": 4, "save_strategy": "steps", "save_steps": 2,
    }  # fmt: skip
    sft.run(config(tmp_path / "whole", **settings))

    class Killed(sft.LearnedTokensTrainer):  # type: ignore[misc]
        def training_step(self, *arguments: Any) -> Any:
            if self.state.global_step == 3:
                raise KeyboardInterrupt
            return super().training_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sft, "LearnedTokensTrainer", Killed)
        with pytest.raises(KeyboardInterrupt):
            sft.run(config(tmp_path / "killed", **settings))
    assert not (tmp_path / "killed/stage.json").exists()
    sft.run(config(tmp_path / "killed", **settings))
    whole, resumed = (load_causal_lm(str(tmp_path / name)) for name in ("whole", "killed"))
    base = dict(load_causal_lm(str(folder)).named_parameters())
    moved = 0.0
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
        moved = max(moved, (a - base[name]).abs().max().item())
    assert moved > 1e-3


@pytest.mark.parametrize("rank", [0, 4])
def test_recomputed_activations_give_the_same_policy(
    trained: tuple[Path, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    folder, _ = trained
    losses, policies, entered = [], [], [0, 0]

    class Counted(sft.LearnedTokensTrainer):  # type: ignore[misc]
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            (layer,) = (m for n, m in self.model.named_modules() if n.endswith("layers.0.self_attn"))
            layer.register_forward_pre_hook(self.count)

        def count(self, *_: object) -> None:
            entered[self.args.gradient_checkpointing] += 1

    monkeypatch.setattr(sft, "LearnedTokensTrainer", Counted)
    for recompute in (False, True):
        output = tmp_path / str(recompute)
        settings = {"max_length": 160, "lora_r": rank, "gradient_checkpointing": recompute}
        sft.run(config(output, model=folder, **settings))
        losses.append(read_record(output)["results"]["train_loss"])
        policies.append(load_causal_lm(str(output)))
    assert entered == [2, 4]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for a, b in zip(policies[0].parameters(), policies[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_adapters_leave_a_policy_like_any_other(
    trained: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = trained
    sft.run(config(tmp_path / "lora", model=folder, max_length=160, lora_r=4, max_steps=1))
    results = read_record(tmp_path / "lora")["results"]
    assert results["trained_parameters"] < results["parameters"] / 4
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "lora")
    assert stock.num_parameters() == results["parameters"]
    assert stock.config.use_cache
    assert (tmp_path / "lora/adapter/adapter_model.safetensors").exists()
    assert revision_of(str(tmp_path / "lora")) != revision_of(str(folder))
    with pytest.raises(MismatchError, match="lora_r: 4 there, None now"):
        sft.run(config(tmp_path / "lora", model=folder, max_length=160, max_steps=1))


def test_a_policy_is_saved_ready_to_write(trained: tuple[Path, list[dict[str, Any]]]) -> None:
    """Trainers switch the cache off; a policy that keeps that setting would write slowly ever after."""
    assert AutoModelForCausalLM.from_pretrained(trained[0]).config.use_cache


def test_an_expert_that_solves_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sft, "demonstrate_all", lambda tasks, **_: [None] * len(tasks))
    with pytest.raises(DataError, match="solved none of the 12 tasks"):
        sft.run(config(tmp_path))
    assert not (tmp_path / "stage.json").exists()


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_demonstrations: got 0"):
        config(tmp_path, num_demonstrations=0)
    with pytest.raises(ConfigError, match="first_task: got -1"):
        config(tmp_path, first_task=-1)
    with pytest.raises(ConfigError, match="end: got 'never'"):
        config(tmp_path, end="never")
    with pytest.raises(ConfigError, match="lora_r: got 4, allowed: 0 for model tiny"):
        config(tmp_path, lora_r=4)
    with pytest.raises(ConfigError, match=r"lora_dropout: got 1\.5"):
        config(tmp_path, model="m", lora_r=4, lora_dropout=1.5)
    with pytest.raises(ConfigError, match=r"expert_thoughts: got true with action_format action_only"):
        config(tmp_path, expert_thoughts=True)
    with pytest.raises(ConfigError, match=r"expert_thoughts: got true, .* does not define explain"):
        sft.run(config(tmp_path, expert_thoughts=True, action_format="react"))


# --- trajectories in AgentGym's format instead of an expert's


def exported(path: Path, *, prompt: str = "short", count: int = 8) -> Path:
    """A file of trajectories that a rollout made."""
    tasks = corridor.tasks(Split.TRAIN, 0, count, length=5)
    write_items(path, rollout([(t, 0) for t in tasks], SeededPolicy(), EpisodeSetting(prompt=prompt)))
    return path


def test_a_policy_learns_from_agentgyms_format_what_it_learns_from_demonstrations(tmp_path: Path) -> None:
    """The expert's trajectories by the way of a file train the same policy."""
    tasks = corridor.tasks(Split.TRAIN, 0, 12, length=5)
    made = []
    for t in tasks:
        actions = corridor.demonstrate(t, end=End.DECLARED)
        policy = ScriptedPolicy({tuple(actions[:n]): [a] for n, a in enumerate(actions)})
        made += rollout([(t, 0)], policy, EpisodeSetting(prompt="none"))
    write_items(tmp_path / "expert.json", made)
    settings = {"max_steps": 1, "max_length": 160}
    sft.run(config(tmp_path / "expert", **settings))
    sft.run(config(tmp_path / "file", **settings, demonstrations=tmp_path / "expert.json"))
    expert, imported = (load_causal_lm(str(tmp_path / name)) for name in ("expert", "file"))
    for a, b in zip(expert.parameters(), imported.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)
    results = read_record(tmp_path / "file")["results"]
    assert (results["demonstrations"], results["expert_failures"]) == (12, 0)


def test_given_trajectories_get_the_instructions_of_the_prompt(tmp_path: Path) -> None:
    source = exported(tmp_path / "a.json", prompt="short")
    for prompt, opening in (("none", []), ("short", [{"role": "system", "content": "Walk to the goal."}])):
        found = sft.import_demonstrations(config(tmp_path / "out", demonstrations=source, prompt=prompt))
        assert len(found) == 8
        for demonstration in found:
            assert list(demonstration.messages[: demonstration.first_action - 1]) == opening
            assert demonstration.messages[demonstration.first_action - 1]["content"].startswith("The goal is")
            assert demonstration.task.environment == "tests.toys.corridor"


def test_a_part_of_the_trajectories_can_be_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = exported(tmp_path / "a.json")
    with caplog.at_level(logging.INFO):
        found = sft.import_demonstrations(
            config(tmp_path / "out", demonstrations=source, first_task=2, num_demonstrations=3)
        )
    assert [d.task.id for d in found] == [f"corridor_train-{n}" for n in (2, 3, 4)]
    assert "3 of the 8 trajectories" in caplog.text
    with pytest.raises(DataError, match="has 8 trajectories; first_task is 8"):
        sft.import_demonstrations(config(tmp_path / "out", demonstrations=source, first_task=8))


def test_other_trajectories_in_the_file_are_not_taken_for_the_same(tmp_path: Path) -> None:
    source = exported(tmp_path / "a.json", count=4)
    settings = {"max_steps": 1, "demonstrations": source}
    sft.run(config(tmp_path / "out", **settings))
    sft.run(config(tmp_path / "out", **settings))
    exported(source, count=5)
    with pytest.raises(MismatchError, match=r"holds a finished run with other settings \(data: "):
        sft.run(config(tmp_path / "out", **settings))


def crafted(folder: Path, *indices: int) -> Path:
    """A folder with AgentTraj's file of TextCraft."""
    talk = [("human", None, "You craft."), ("gpt", False, "OK."), ("human", None, "Goal: craft stick.")]
    talk.append(("gpt", True, "Thought:\nhm\n\nAction:\nget 1 oak log"))
    conversation = [{"from": sender, "loss": loss, "value": text} for sender, loss, text in talk]
    rows = [{"item_id": f"textcraft_{index}", "conversations": conversation} for index in indices]
    folder.mkdir()
    (folder / "textcraft_train.json").write_text(json.dumps(rows))
    return folder


@pytest.mark.parametrize(
    "environment",
    [
        {"environment": "agentgym", "env_kwargs.protocol": "textcraft"},
        {"environment": "rlprm.envs.agentgym.textcraft"},
    ],
)
def test_demonstrations_of_dev_and_test_tasks_are_not_learned(
    environment: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = crafted(tmp_path / "traj", *range(20), 7, 19)

    def learned(indices: str, **changes: Any) -> list[int]:
        settings = {
            **environment, "env_kwargs.data_indices": indices, "demonstrations": source,
            "end": "on_success", "prompt": "agentgym", "action_format": "react", "num_demonstrations": 100,
            **changes,
        }  # fmt: skip
        found = sft.import_demonstrations(config(tmp_path / "out", **settings))
        return [int(d.task.id.removeprefix("textcraft_")) for d in found]

    with caplog.at_level(logging.INFO):
        kept = learned(f"{{train: {source}}}")  # dev is every tenth of train where none is named
    assert kept == [*range(9), *range(10, 19), 7]
    assert f"3 of the 22 trajectories in {source} are left out: dev or test tasks" in caplog.text
    assert f"19 of the 19 trajectories in {source} are learned" in caplog.text
    assert learned("{train: 0-5, dev: [6, 7], test: 10-100}") == [0, 1, 2, 3, 4, 5, 8, 9]
    assert learned("{train: 0-5, dev: [6, 7], test: 10-100}", first_task=5, num_demonstrations=2) == [5, 8]
    assert learned("{train: 0-30, dev: 31}") == [*range(20), 7, 19]
    with pytest.raises(DataError, match=r"all 22 trajectories in .* are of dev or test tasks"):
        learned("{test: 0-19}")
    with pytest.raises(ConfigError, match="agentgym data_indices: got 'train'"):
        learned("train")


def test_the_protocol_of_agentgyms_servers_says_which_trajectories_are_meant(tmp_path: Path) -> None:
    entries = [("human", None), ("gpt", False), ("human", None), ("gpt", True)]
    told = ["You craft.", "OK.", "Goal: craft stick.", "Thought:\nhm\n\nAction:\nget 1 oak log"]
    rows = [
        {
            "item_id": name,
            "conversations": [
                {"from": f, "loss": x, "value": v} for (f, x), v in zip(entries, told, strict=True)
            ],
        }
        for name in ("webshop_1", "textcraft_2")
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    wanted = {
        "environment": "agentgym", "env_kwargs.protocol": "textcraft", "env_kwargs.length": 5,
        "end": "on_success", "prompt": "agentgym", "action_format": "react",
        "demonstrations": tmp_path / "a.json",
    }  # fmt: skip
    (found,) = sft.import_demonstrations(config(tmp_path / "out", **wanted))
    assert found.task.environment == "rlprm.envs.agentgym.textcraft"
    assert found.messages[0]["content"].startswith("You are given a few recipes")
    assert [m["content"] for m in found.messages[2:]] == told[2:]
    with pytest.raises(ConfigError, match="action_format: got action_only, allowed: react"):
        sft.import_demonstrations(config(tmp_path / "out", **{**wanted, "action_format": "action_only"}))
    with pytest.raises(ConfigError, match="agentgym protocol: got 'alfworld', allowed: babyai"):
        sft.import_demonstrations(config(tmp_path / "out", **{**wanted, "env_kwargs.protocol": "alfworld"}))
    here = {**wanted, "environment": "textcraft", "end": "declared"}
    with pytest.raises(ConfigError, match="end: got declared, allowed: on_success, as 0 of these 1"):
        sft.import_demonstrations(config(tmp_path / "out", **here))
    with pytest.raises(DataError, match="holds no item of 'babyai'"):
        sft.import_demonstrations(config(tmp_path / "out", **{**wanted, "environment": "babyai"}))
