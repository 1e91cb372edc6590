"""Records: their fields, their costs, and comparisons task by task."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

import pytest

from rlprm.errors import DataError, MismatchError
from rlprm.evaluation.records import Costs, EvaluationRecord, Measurement, compare, measure, measure_results
from rlprm.search.base import SearchResult
from rlprm.types import End
from tests.toys.trajectories import of_steps


def measured(successes: dict[str, float], strategy: str = "greedy", **kwargs: object) -> Measurement:
    scores = list(successes.values())
    return measure(successes, scores, strategy=strategy, end=End.DECLARED, costs=Costs(1, 1, 2, 3), **kwargs)


def test_the_fields_are_those_that_other_programs_rely_on() -> None:
    assert [f.name for f in fields(EvaluationRecord)] == [
        "strategy", "scorer", "aggregation", "n", "m", "end", "success_rate", "ci_low", "ci_high",
        "mean_score", "policy_tokens", "sampled_tokens", "prm_tokens", "env_steps", "tasks", "failed",
        "search", "episodes",
    ]  # fmt: skip


def test_search_results_become_a_record_of_means_per_task() -> None:
    results = [
        SearchResult(of_steps(True, task="a"), 0.7, 10, 60, 100, 4),
        SearchResult(of_steps(False, task="b", score=0.5), 0.2, 20, 70, 300, 7),
    ]
    m = measure_results(results, strategy="beam", scorer="agentprm", aggregation="last", n=4, m=8)
    record = asdict(m.record)
    interval = record.pop("ci_low"), record.pop("ci_high")
    assert record == {
        "strategy": "beam",
        "scorer": "agentprm",
        "aggregation": "last",
        "n": 4,
        "m": 8,
        "end": "declared",
        "success_rate": 0.5,
        "mean_score": 0.75,
        "policy_tokens": 65.0,
        "sampled_tokens": 15.0,
        "prm_tokens": 200.0,
        "env_steps": 5.5,
        "tasks": 2,
        "failed": 0,
        "search": None,
        "episodes": None,
    }
    assert interval == (0.0, 1.0)
    assert m.successes == {"a": 1.0, "b": 0.0}
    assert m.record.total_tokens == 265.0


def test_the_interval_is_over_tasks() -> None:
    record = measured({str(i): float(i % 4 == 0) for i in range(100)}).record
    assert record.success_rate == 0.25
    # the normal approximation: .25 ± 1.96 √(.25 · .75 / 100)
    assert record.ci_low == pytest.approx(0.25 - 0.085, abs=0.015)
    assert record.ci_high == pytest.approx(0.25 + 0.085, abs=0.015)


def test_results_that_are_not_one_per_task_are_refused() -> None:
    result = SearchResult(of_steps(), None, 1, 5, 0, 1)
    with pytest.raises(DataError, match="one result for each task"):
        measure_results([result, result], strategy="greedy")
    with pytest.raises(DataError, match="one result for each task"):
        measure_results([], strategy="greedy")
    other = replace(result, trajectory=of_steps(task="b", end=End.ON_SUCCESS))
    with pytest.raises(MismatchError, match="different ends: declared, on_success"):
        measure_results([result, other], strategy="greedy")


def test_a_comparison_pairs_tasks_whatever_their_order() -> None:
    # Paired, every difference is .1: no spread. Unpaired, or in another order, there would be some.
    tasks = [str(i) for i in range(20)]
    b = {task: i / 25 for i, task in enumerate(tasks)}
    a = {task: b[task] + 0.1 for task in reversed(tasks)}
    found = compare(measured(a, "best_of_n", scorer="agentprm", n=16), measured(b, "sample_mean"))
    assert found.a == "best of 16, agentprm"
    assert found.b == "one sample"
    assert found.difference == pytest.approx(0.1)
    assert found.ci_low == pytest.approx(0.1)
    assert found.ci_high == pytest.approx(0.1)
    assert found.tasks == 20


def test_different_tasks_or_ends_are_not_compared() -> None:
    a = measured({"a": 1.0, "b": 0.0})
    with pytest.raises(MismatchError, match=r"\['b', 'c'\] are on one side only"):
        compare(a, measured({"a": 1.0, "c": 0.0}))
    other_end = Measurement(replace(a.record, end="on_success"), a.successes)
    with pytest.raises(MismatchError, match="declared episodes cannot be compared with on_success"):
        compare(a, other_end)


@pytest.mark.parametrize(
    ("strategy", "label", "name"),
    [
        ("greedy", "greedy", "greedy"),
        ("sample_mean", "one sample", "one sample"),
        ("best_of_n", "best of N, orm", "best of 8, orm"),
        ("beam", "beam N×2, orm", "beam 8×2, orm"),
        ("oracle", "oracle (pass@N)", "oracle (pass@8)"),
        ("mcts", "mcts N, orm", "mcts 8, orm"),
    ],
)
def test_names(strategy: str, label: str, name: str) -> None:
    record = measured({"a": 1.0}, strategy, scorer="orm", n=8, m=2).record
    assert (record.label, record.name) == (label, name)
