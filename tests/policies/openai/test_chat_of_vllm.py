"""A real server's chat endpoint gives the messages that its token endpoint gives, as far as text can say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from rlprm import cli
from rlprm.data.store import TrajectoryStore
from rlprm.policies.config import PolicyConfig
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, Task, Trajectory
from tests.toys import corridor
from tests.vllm_server import RealServer

CHAT = EpisodeSetting(round_limit=4, prompt="short")
TOKENS = 8
INCOMPLETE = "\ufffd"
"""What stands for bytes that are no whole character; the endpoint leaves them out at the end of a message."""


def name_of(server: RealServer) -> str:
    listed = httpx.get(f"{server.url}/v1/models", trust_env=False).json()["data"]
    return next(str(entry["id"]) for entry in listed if entry.get("parent") is None)


def at(server: RealServer, **changes: Any) -> PolicyConfig:
    settings: dict[str, Any] = {
        "model": str(server.model), "max_new_tokens": TOKENS, "temperature": 0.0, "dtype": "float32",
        "endpoint": f"{server.url}/v1", "endpoint_model": name_of(server),
        # The endpoint leaves control tokens out of its text, unless it is asked for them.
        "endpoint_kwargs": {"skip_special_tokens": False},
    }  # fmt: skip
    return PolicyConfig(**{**settings, **changes})


def by_tokens(server: RealServer) -> PolicyConfig:
    return PolicyConfig(
        model=str(server.model), max_new_tokens=TOKENS, temperature=0.0, dtype="float32", server=[server.url]
    )


def jobs(count: int = 6) -> list[tuple[Task, int]]:
    return [(task, 0) for task in corridor.tasks(Split.TRAIN, 0, count)]


def test_messages_are_those_of_the_token_endpoint_while_the_contexts_are(vllm: RealServer) -> None:
    """A later context differs where encoding the text again gives other tokens than were sampled."""
    ours = rollout(jobs(), at(vllm).load_policy(), CHAT)
    theirs = rollout(jobs(), by_tokens(vllm).load_policy(), CHAT)
    compared = 0
    for a, b in zip(ours, theirs, strict=True):
        assert (a.error, b.error, a.exact, b.exact) == (None, None, False, True)
        for one, other, said, expected in zip(a.steps, b.steps, _said(a), _said(b), strict=False):
            if a.token_ids[: one.start] != b.token_ids[: other.start]:
                break
            assert said.removesuffix("<|im_end|>") == expected.rstrip(INCOMPLETE)
            assert a.action_mask[one.end] == b.action_mask[other.end]  # cut in both, or in neither
            compared += 1
    assert compared >= len(ours)


def _said(trajectory: Trajectory) -> list[str]:
    return [message["content"] for message in trajectory.messages if message["role"] == "assistant"]


def test_a_collection_through_the_chat_endpoint_counts_what_the_server_counts(
    vllm: RealServer, tmp_path: Path
) -> None:
    words = ["--environment", "tests.toys.corridor", "--round_limit", "3", "--max_new_tokens", str(TOKENS)]
    named = ["--model", str(vllm.model), "--endpoint", f"{vllm.url}/v1", "--endpoint_model", name_of(vllm)]
    sizes = ["--num_tasks", "3", "--samples_per_task", "2", "--wave_size", "4"]
    assert cli.main(["collect", *words, *named, *sizes, "--output_dir", str(tmp_path)]) == 0
    done = TrajectoryStore.open(tmp_path).read()
    assert not any(t.error for t in done)
    assert all(t.fed_tokens and t.fed_tokens > 0 for t in done)
    assert len({t.messages[1]["content"] for t in done}) > 1  # seeds differ


@pytest.mark.parametrize("endpoint_model", ["no-such-model"])
def test_an_unknown_model_ends_the_stage(vllm: RealServer, tmp_path: Path, endpoint_model: str) -> None:
    named = ["--model", str(vllm.model), "--endpoint", f"{vllm.url}/v1", "--endpoint_model", endpoint_model]
    words = ["--environment", "tests.toys.corridor", "--num_tasks", "2", "--output_dir", str(tmp_path)]
    assert cli.main(["collect", *words, *named]) == 2
