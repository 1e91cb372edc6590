"""Stages that act through an endpoint, from the command line, and what their records hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlprm import cli
from rlprm.data.store import TrajectoryStore
from rlprm.errors import EpisodesFailedError
from tests.toys.fake_endpoint import KEY, FakeEndpoint, answering
from tests.toys.fake_vllm import Reply

EPISODES = ["--environment", "tests.toys.corridor", "--round_limit", "4", "--max_new_tokens", "8"]
SOON = ["--end", "on_success"]  # so that some of the random episodes succeed
COLLECT = ["--num_tasks", "6", "--samples_per_task", "3", "--wave_size", "4"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with answering(FakeEndpoint(key=KEY)) as endpoint:
        yield endpoint


def at(fake: FakeEndpoint, model: Path, stage: str, output: Path, *more: str) -> int:
    named = ["--model", str(model), "--endpoint", fake.url, "--endpoint_model", "toy"]
    return cli.main([stage, *EPISODES, *named, "--output_dir", str(output), *more])


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "stage.json").read_text())
    return found


def everything_in(folder: Path) -> str:
    return "".join(
        p.read_text(errors="replace") for p in folder.rglob("*") if p.suffix in (".json", ".jsonl")
    )


def test_a_collection_is_recorded_with_its_costs_and_without_the_key(
    fake: FakeEndpoint, tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c"
    assert at(fake, tiny_folder, "collect", out, *COLLECT, "--endpoint_kwargs.top_p", "0.9") == 0
    store = TrajectoryStore.open(out)
    trajectories, results = store.read(), record(out)["results"]
    assert not any(t.exact for t in trajectories)
    assert {t.policy for t in trajectories} == {store.meta["policy"]}
    assert (store.meta["engine"], store.meta["endpoint_model"], store.meta["exact"]) == (
        "endpoint", "toy", False,
    )  # fmt: skip
    assert results["endpoint"] == {
        "requests": len(fake.requests), "prompt_tokens": 100 * len(fake.requests), "cached_tokens": 0,
        "completion_tokens": 7 * len(fake.requests), "requests_without_usage": 0, "models": ["toy-2026"],
    }  # fmt: skip
    assert results["policy_tokens"] == 107 * results["env_steps"]
    said = capfd.readouterr()
    for secret in (KEY, fake.url, fake.url.rpartition(":")[2]):
        assert secret not in everything_in(out) + said.out + said.err
    asked = len(fake.requests)
    assert at(fake, tiny_folder, "collect", out, *COLLECT, "--endpoint_kwargs.top_p", "0.9") == 0
    assert len(fake.requests) == asked  # finished: nothing is asked again
    assert at(fake, tiny_folder, "collect", out, *COLLECT) == 2  # other parameters, another policy


def test_failed_rows_are_asked_again_and_costs_add_up(
    fake: FakeEndpoint, tiny_folder: Path, tmp_path: Path
) -> None:
    def filtered(reply: Reply) -> None:
        reply.choice.update(finish_reason="content_filter")

    fake.faults += [filtered, filtered]
    assert at(fake, tiny_folder, "collect", tmp_path / "c", *COLLECT) == 0
    assert record(tmp_path / "c")["results"]["failed_episodes"] == 2
    assert at(fake, tiny_folder, "collect", tmp_path / "c", *COLLECT) == 0
    results = record(tmp_path / "c")["results"]
    assert results["failed_episodes"] == 0
    assert results["endpoint"]["requests"] == len(fake.requests) - 2
    assert at(fake, tiny_folder, "collect", tmp_path / "c", *COLLECT, "--overwrite") == 0
    assert record(tmp_path / "c")["results"]["endpoint"]["requests"] < len(fake.requests) - 2


def test_if_all_rows_fail_the_cause_is_said_in_printable_text(
    fake: FakeEndpoint, tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(reply: Reply) -> None:
        reply.status, reply.content = 400, {"error": {"message": "no \x1b[2J temperature"}}

    fake.faults += [refuse] * 100
    assert at(fake, tiny_folder, "collect", tmp_path / "c", *COLLECT) == EpisodesFailedError.exit_status
    said = capfd.readouterr().err
    assert "temperature" in said
    assert "\x1b[2J" not in said + everything_in(tmp_path / "c").encode().decode("unicode_escape", "replace")


def test_states_are_estimated_and_actions_probed(
    fake: FakeEndpoint, tiny_folder: Path, tmp_path: Path
) -> None:
    assert at(fake, tiny_folder, "collect", tmp_path / "c", *COLLECT) == 0
    before = len(fake.requests)
    given = ["--trajectories", str(tmp_path / "c"), "--rollouts", "4"]
    assert at(fake, tiny_folder, "estimate", tmp_path / "e", *given) == 0
    spent = record(tmp_path / "e")["results"]["endpoint"]
    assert spent["requests"] == len(fake.requests) - before > 0
    before = len(fake.requests)
    probe = ["--num_states", "2", "--samples_per_state", "4"]
    assert at(fake, tiny_folder, "probe-actions", tmp_path / "p", *given, *probe) == 0
    assert record(tmp_path / "p")["results"]["endpoint"]["requests"] == len(fake.requests) - before > 0
    assert (tmp_path / "e/labels.jsonl").exists()


def test_a_prm_is_trained_on_an_endpoint_s_episodes_and_guides_it(
    fake: FakeEndpoint, tiny_folder: Path, foreign_folder: Path, tmp_path: Path
) -> None:
    assert at(fake, tiny_folder, "collect", tmp_path / "c", *COLLECT, *SOON) == 0
    for name, base in (("own", tiny_folder), ("foreign", foreign_folder)):
        train = ["--model", str(base), "--trajectories", str(tmp_path / "c"), "--max_steps", "2"]
        out = ["--output_dir", str(tmp_path / name), "--bf16", "false"]
        assert cli.main(["train-prm", *train, *out]) == 0
    scorers = ["--scorers.own", str(tmp_path / "own"), "--scorers.foreign", str(tmp_path / "foreign")]
    sizes = ["--num_tasks", "2", "--num_dev_tasks", "2", "--budgets", "1", "2", "--chosen_at", "2"]
    search = ["--beams", "2x2", "--with_confidence", "false", "--wave_size", "4"]
    before = len(fake.requests)
    assert at(fake, tiny_folder, "evaluate", tmp_path / "v", *scorers, *sizes, *search, *SOON) == 0
    rows = json.loads((tmp_path / "v/summary.json").read_text())["evaluation"]
    assert {row["strategy"] for row in rows} >= {"beam", "greedy"}
    assert not any("policy" in str(row["scorer"]) for row in rows)
    steps = {row["policy_tokens"] / 107 for row in rows if row["strategy"] in ("beam", "greedy")}
    assert all(abs(2 * number - round(2 * number)) < 1e-9 for number in steps)  # the mean of two tasks
    assert record(tmp_path / "v")["results"]["endpoint"]["requests"] == len(fake.requests) - before


def test_the_successes_can_be_cloned(fake: FakeEndpoint, tiny_folder: Path, tmp_path: Path) -> None:
    assert at(fake, tiny_folder, "collect", tmp_path / "c", *COLLECT) == 0
    sft = ["--model", str(tiny_folder), "--trajectories", str(tmp_path / "c"), "--max_steps", "1"]
    own = ["--environment", "tests.toys.corridor", "--only_successes", "false", "--bf16", "false"]
    assert cli.main(["sft", *sft, *own, "--output_dir", str(tmp_path / "s"), "--round_limit", "4"]) == 0
