"""An evaluation does its work in parts, and shares them out: no number depends on how."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.evaluation.search_store import SearchStore
from rlprm.runtime.config import parse
from rlprm.runtime.processes import Processes
from rlprm.scorers.distributed import DistributedScorer
from rlprm.scorers.random import Random
from rlprm.search import beam, greedy
from rlprm.search.base import SearchResult
from rlprm.search.record import Node
from rlprm.stages import evaluate
from rlprm.stages.settings import EvaluateConfig
from rlprm.types import StepScores, StopReason, Task, Trajectory
from tests.toys.pipeline import Pipeline
from tests.toys.trajectories import of_steps


def test_the_greedy_pass_fits_into_waves_and_their_size_changes_no_record(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    decode = greedy.search

    def spy(tasks: Sequence[Task], *rest: Any, **options: Any) -> list[SearchResult]:
        sizes.append(len(tasks))
        return decode(tasks, *rest, **options)

    monkeypatch.setattr(greedy, "search", spy)

    def records(wave_size: int) -> list[dict[str, Any]]:
        arguments = [*pipeline.evaluation, "--wave_size", str(wave_size), "--num_tasks", "5"]
        config = parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / str(wave_size))])
        config.beams, config.confident = [], False
        found: list[dict[str, Any]] = evaluate.run(config)["evaluation"]
        return found

    assert records(2) == records(64)
    assert sizes == [2, 2, 1, 5]


class Asked(Random):
    """Remembers what it was asked about."""

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores]:
        self.about = list(trajectories)
        return super().score(trajectories)


@pytest.mark.parametrize("number", [1, 5])
def test_each_process_scores_its_share_and_has_all_the_scores(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [of_steps(steps=1 + i % 3, sample=i) for i in range(number)]
    members = [Processes(rank, 2) for rank in range(2)]
    by_length = sorted(made, key=lambda t: len(t.token_ids))
    shares = [Random().score(member.share(by_length)) for member in members]
    monkeypatch.setattr(Processes, "gather_all", lambda *_: shares)
    for member in members:
        scorer = Asked()
        scorer.about = []
        assert DistributedScorer(scorer, member).score(made) == Random().score(made)
        assert scorer.about == by_length[member.rank :: 2]


def test_the_scoring_of_both_pools_is_shared_out(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []

    class Watched(Processes):
        def share(self, parts: Sequence[Any]) -> list[Any]:
            if parts and isinstance(parts[0], Trajectory):
                shared.append(len(parts))
            return super().share(parts)

    monkeypatch.setattr(evaluate, "start_processes", Watched)
    config = parse(EvaluateConfig, [*pipeline.evaluation, "--output_dir", str(tmp_path / "out")])
    config.beams = []
    evaluate.run(config)
    assert shared == [5 * 4, 6 * 4] * len(config.scorers)


def test_a_killed_evaluation_keeps_the_searches_that_were_done(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*pipeline.evaluation, "--wave_size", "8", "--with_confidence", "false"]  # 2 tasks a portion
    whole = evaluate.run(parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / "whole")]))
    searched: list[str] = []
    really = beam.search

    def search(tasks: Sequence[Task], *rest: Any, **options: Any) -> list[SearchResult]:
        if len(searched) == 4:
            raise KeyboardInterrupt
        searched.append(tasks[0].id)
        return really(tasks, *rest, **options)

    again = parse(EvaluateConfig, [*arguments, "--output_dir", str(tmp_path / "killed")])
    with monkeypatch.context() as patch:
        patch.setattr(beam, "search", search)
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(again)
        searched.clear()
        found = evaluate.run(again)
    # Three portions under each of two scorers; four had been searched.
    assert len(searched) == 2
    measured = {"compute": {}, "seconds": {}, "peak_memory": {}}
    assert {**found, **measured} == {**whole, **measured}


def test_results_with_a_failed_episode_are_searched_again(tmp_path: Path) -> None:
    store = SearchStore.create(tmp_path, {})
    good = SearchResult(of_steps(True, 2), 0.5, 10, 30, 20, 2)
    unranked = SearchResult(of_steps(False, 1), None, 3, 9, 0, 1)
    node = Node(0, None, 1, 2, ("left", "finish"), (0.1, 0.5), 0.5, kept=True, stop=StopReason.DECLARED)
    good = replace(good, nodes=(node, replace(node, number=1, actions=(), scores=(), rank=None, stop=None)))
    store.write(0, [good, unranked])
    tasks = [good.trajectory.task, unranked.trajectory.task]
    assert store.finished(0, tasks) == [good, unranked]
    assert store.finished(0, tasks[:1]) is None  # another version divided the tasks otherwise
    assert store.finished(0, [*tasks, replace(tasks[0], id="another")]) is None
    store.write(1, [good, replace(good, trajectory=of_steps(steps=1, stop=StopReason.ERROR))])
    assert store.finished(1, tasks) is None
    assert store.finished(2, tasks) is None


def test_results_of_a_version_that_counted_sampled_tokens_alone_are_searched_again(tmp_path: Path) -> None:
    store = SearchStore.create(tmp_path, {})
    store.write(0, [SearchResult(of_steps(True, 2), 0.5, 8, 10, 20, 2)])
    (shard,) = tmp_path.glob("*.jsonl")
    row = json.loads(shard.read_text())
    shard.write_text(json.dumps({name: value for name, value in row.items() if name != "sampled_tokens"}))
    assert store.finished(0, [of_steps(True, 2).task]) is None
