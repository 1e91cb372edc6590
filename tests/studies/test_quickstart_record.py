"""The quickstart's record: figures that moved are named, every seed is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlprm.errors import DataError, MismatchError
from rlprm.runtime.files import read_json, write_json
from rlprm.runtime.record import made
from studies import quickstart
from tests.toys.quickstart import run_of


def _evaluated(
    strategy: str, rate: float, *, scorer: str | None = None, n: int = 1, m: int = 1
) -> dict[str, Any]:
    return {
        "strategy": strategy, "scorer": scorer, "aggregation": None, "n": n, "m": m, "end": "declared",
        "success_rate": rate, "ci_low": rate - 0.1, "ci_high": rate + 0.1, "mean_score": rate,
        "policy_tokens": 10.0, "sampled_tokens": 5.0, "prm_tokens": 20.0, "env_steps": 3.0, "tasks": 96,
        "failed": 0,
    }  # fmt: skip


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """What a finished quickstart leaves, as far as figures are concerned."""
    rows = [
        _evaluated("sample_mean", 0.2),
        _evaluated("best_of_n", 0.3, scorer="agentprm", n=2),
        _evaluated("best_of_n", 0.5, scorer="agentprm", n=16),
        _evaluated("until_accepted", 0.4, scorer="transcript", n=2),
        _evaluated("until_accepted", 0.7, scorer="transcript", n=16),
        _evaluated("oracle", 0.8, n=16),
        _evaluated("beam", 0.6, scorer="agentprm", n=4, m=4),
    ]
    of_rl = {part: {"sample": {"mean": x, "low": x - 0.1, "high": x + 0.1}}
             for part, x in (("before", 0.2), ("after", 0.3), ("difference", 0.1))}  # fmt: skip
    folder = tmp_path / "quickstart"
    equal = [
        {"search": f"beam 4×4, {scorer}", "reference": "until transcript, at most N", "cost": cost,
         "spent": 1234.5, "n": 7.96, "beyond_pool": False, "success_rate": 0.45}
        for scorer in ("agentprm", "random") for cost in ("env_steps", "total_tokens")
    ]  # fmt: skip
    write_json(
        folder / "summary.json",
        {"evaluation": rows, "equal_cost": equal, "rl": of_rl, "seconds": {"total": 540.0}},
    )
    config = {"seed": 4, "environment": "babyai", "chosen_at": 16, "main_scorer": "agentprm"}
    write_json(folder / "evaluation/stage.json", {"seconds": 1.0, "results": {}, "config": config})
    return folder


def test_headline_figures_are_those_at_the_chosen_budget(finished: Path) -> None:
    run = quickstart.headline(finished)
    assert run["seed"] == 4
    assert {name: figure["success"] for name, figure in run["figures"].items()} == {
        "one sample": 20.0, "best of 16, agentprm": 50.0, "oracle (pass@16)": 80.0,
        "until transcript, at most 16": 70.0, "beam 4×4, agentprm": 60.0,
        "until transcript, at most k, at the environment steps of beam 4×4, agentprm": 45.0,
        "until transcript, at most k, at the tokens of beam 4×4, agentprm": 45.0,
        "one sample, before RL": 20.0, "one sample, after RL": 30.0, "one sample, gain by RL": 10.0,
    }  # fmt: skip
    assert run["figures"]["one sample"]["tokens"] == 30


def test_a_run_takes_the_place_of_its_seed_in_the_record(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    same = {"recipes": quickstart.headline(finished)["recipes"]}
    runs = [run_of(4, {"old": 1.0}) | same, run_of(9, {"greedy": 2.0}) | same, run_of(8, {"greedy": 3.0})]
    write_json(file, {"runs": runs})
    quickstart.record(finished, file)
    runs = read_json(file)["runs"]
    assert [run["seed"] for run in runs] == [4, 9], "seed 8 had other recipes"
    assert "old" not in runs[0]["figures"]


def test_a_run_keeps_the_commit_at_which_it_ran(finished: Path) -> None:
    def ran(stage: str, **made: object) -> None:
        file = finished / stage / "stage.json"
        before = read_json(file) if file.exists() else {"config": {}}
        write_json(file, {**before, "made": {"changed_files": False, "processor": "of the run", **made}})

    old = quickstart.headline(finished)["made"]  # of 0.1.0: its stages recorded no commit
    assert old["commit"] is old["changed_files"] is None
    assert old["recorded_at_commit"] == made()["commit"]
    ran("evaluation", commit="abc")
    ran("policy", commit="abc")
    found = quickstart.headline(finished)["made"]
    assert found == {"commit": "abc", "changed_files": False, "processor": "of the run"}
    ran("rl", commit="def")
    assert quickstart.headline(finished)["made"] == {**found, "commits": ["abc", "def"]}


def test_runs_with_other_recipes_or_figures_make_no_table() -> None:
    one = run_of(0, {"greedy": 50.0})
    for other in (run_of(1, {"greedy": 50.0}) | {"recipes": "other"}, run_of(1, {"one sample": 50.0})):
        for make in (quickstart.table, quickstart.short_table):
            with pytest.raises(MismatchError, match="seeds 0 and 1 have different"):
                make({"runs": [one, other]})


def test_a_run_with_other_tasks_is_not_compared() -> None:
    with pytest.raises(MismatchError, match="the record has test_tasks 96, the run 48"):
        quickstart.compare(run_of(0, {}) | {"test_tasks": 48}, {"runs": [run_of(0, {})]})


def test_readmes_table_has_a_row_of_each_scorer_and_sentences_of_the_others(finished: Path) -> None:
    text = quickstart.short_table({"runs": [quickstart.headline(finished)]})
    assert "one run (seed 4)" in text
    assert "one sample 20.0 [10, 30]; an oracle, pass@16 80.0 [70, 90]." in text
    assert "| AgentPRM | 50.0 [40, 60] | 30, 3 | 60.0 [50, 70] | 30, 3 |" in text
    assert (
        "At the tokens of beam 4×4 by AgentPRM: one sample after another until `transcript` shows success, "
        "at most 8.0, 45.0."
    ) in text
    assert "20.0 [10, 30] before, 30.0 [20, 40] after, +10.0 [+0, +20] gained." in text


def test_readme_shows_every_free_baseline_but_no_product_with_the_policys_probability() -> None:
    rows, sentence = ("policy_confidence", "transcript", "random"), ("shortest", "declared")
    names = (*rows, *sentence, "agentprm_x_policy")
    rates = {f"best of 16, {name}": 50.0 + n for n, name in enumerate(names)}
    text = quickstart.short_table({"runs": [run_of(0, {"one sample": 20.0, **rates})]})
    assert [name for name in names if f"| `{name}` | 5" in text] == list(rows)
    assert "one sample 20.0 [15, 25]; best of 16 by `shortest` 53.0 [48, 58]; " in text
    assert "best of 16 by `declared` 54.0 [49, 59]." in text
    assert "_x_policy" not in text


def test_a_search_in_which_another_policy_acts_is_a_sentence(finished: Path) -> None:
    summary, stage = (read_json(finished / name) for name in ("summary.json", "evaluation/stage.json"))
    row = _evaluated("search", 0.65, scorer="transcript") | {"search": "clone_samples"}
    write_json(finished / "summary.json", {**summary, "evaluation": [*summary["evaluation"], row]})
    searches = {"clone_samples": {"strategy": "sample_until_accepted", "policy": "runs/quickstart/clone"}}
    config = {**stage["config"], "searches": searches}
    write_json(finished / "evaluation/stage.json", {**stage, "config": config})
    run = quickstart.headline(finished)
    assert run["figures"]["clone_samples, transcript"]["policy"] == "clone"
    text = quickstart.short_table({"runs": [run]})
    assert "`clone_samples`, in which the clone acts: 65.0 [55, 75], 30 tokens, 3 steps." in text


def test_the_seconds_of_stages_are_those_of_the_runs(finished: Path) -> None:
    summary = read_json(finished / "summary.json")
    seconds = {"total": 540.0, "sft": 40.0, "evaluate": 100.0, "within": {"pool": 20.0}}
    write_json(finished / "summary.json", {**summary, "seconds": seconds})
    one = quickstart.headline(finished)
    text = quickstart.seconds_table({"runs": [one, {**one, "seconds": 560.0}]})
    assert text.splitlines()[2:] == [
        "| `sft` | 40 (40, 40) |", "| `evaluate` | 100 (100, 100) |", "| `all` | 550 (540, 560) |",
    ]  # fmt: skip


def _beside(finished: Path, part: str) -> dict[str, Any]:
    """Write an evaluation beside the quickstart's own; return the run's figures."""
    row = _evaluated("search", 0.65, scorer="transcript") | {"search": "cold"}
    equal = {"search": "cold, transcript", "reference": "until transcript, at most N"}
    equal_cost = [
        equal | {"cost": "total_tokens", "success_rate": 0.6, "beyond_pool": True},
        equal | {"cost": "env_steps", "success_rate": 0.7, "beyond_pool": False},
    ]
    evaluation = {"evaluation": [_evaluated("greedy", 0.2), row], "equal_cost": equal_cost}
    write_json(finished / part / "summary.json", evaluation)
    config = {"searches": {"cold": {"strategy": "sample_until_accepted", "temperature": 0.7}}}
    write_json(finished / part / "stage.json", {"seconds": 1.0, "results": {}, "config": config})
    return quickstart.headline(finished)


def test_controls_stand_in_the_table(finished: Path) -> None:
    run = _beside(finished, "controls")
    assert "| control: cold, transcript | 65.0 [55, 75] | 30 | 3.0 |" in quickstart.table({"runs": [run]})


def test_other_searches_stand_beside_sampling_until_success_at_their_cost(finished: Path) -> None:
    run = _beside(finished, "searches")
    one = quickstart.searches_table({"runs": [run]})
    assert one.splitlines()[2:] == ["| cold, transcript | 65.0 [55, 75] | 30 | 3.0 | +5.0 † | -5.0 |"]
    # Differences 5 and 5 have no deviation.
    both = quickstart.searches_table({"runs": [run, run | {"seed": 5}]})
    assert "| +5.0 [+5.0, +5.0] (+5.0, +5.0) † | -5.0 [-5.0, -5.0] (-5.0, -5.0) |" in both
    assert "cold" not in quickstart.table({"runs": [run]})


@pytest.mark.parametrize("part", ["controls", "searches"])
def test_other_evaluations_are_not_compared_and_stand_in_every_run(finished: Path, part: str) -> None:
    run = _beside(finished, part)
    without = {name: value for name, value in run.items() if name != part}
    assert quickstart.compare(without, {"runs": [run]})[1] == []
    with pytest.raises(MismatchError, match=f"different {part}"):
        quickstart.table({"runs": [run, without | {"seed": 5}]})


def test_a_record_without_other_searches_says_so(finished: Path) -> None:
    run = quickstart.headline(finished)
    assert quickstart.searches_table({"runs": [run]}) == "No other search has been recorded yet."


def test_rls_controls_are_the_policies_after_it_and_the_clone_before(finished: Path) -> None:
    for name, after in (("filtered", 0.3), ("filtered_of_clone", 0.4)):
        parts = {"before": 0.25, "after": after}
        of_rl = {part: {"sample": {"mean": x, "low": x - 0.1, "high": x + 0.1}} for part, x in parts.items()}
        write_json(finished / name / "summary.json", of_rl)
    controls = quickstart.headline(finished)["controls"]
    assert {name: figure["success"] for name, figure in controls.items()} == {
        "one sample, after learning own successes as long as RL": 30.0,
        "one sample of the clone": 25.0,
        "one sample, after the clone learned own successes as long as RL": 40.0,
    }


def test_differences_are_students_t_over_seeds_and_need_two() -> None:
    rates = {"beam 4×4, orm": 40.0, "beam 4×4, agentprm": 50.0}
    runs = [run_of(0, rates), run_of(1, rates | {"beam 4×4, agentprm": 60.0})]
    # Differences 10 and 20: mean 15, deviation 7.07, t(1) 12.706, so that half of the interval is 63.5.
    assert "| beam 4×4, agentprm − beam 4×4, orm | +15.0 [-48.5, +78.5] (+10.0, +20.0) |" in quickstart.table(
        {"runs": runs}
    )
    assert "−" not in quickstart.table({"runs": runs[:1]})


@pytest.mark.parametrize(
    ("reference", "figure", "sentence"),
    [
        ("best of N, transcript", "best of k, transcript", "best of 8.0 by `transcript` 45.0."),
        ("majority of N", "best of k, majority", "best of 8.0 by `majority` 45.0."),
    ],
)
def test_other_references_than_sampling_until_success_keep_their_names(
    finished: Path, reference: str, figure: str, sentence: str
) -> None:
    summary = read_json(finished / "summary.json")
    equal = [{**row, "reference": reference} for row in summary["equal_cost"]]
    write_json(finished / "summary.json", {**summary, "equal_cost": equal})
    run = quickstart.headline(finished)
    assert run["figures"][f"{figure}, at the tokens of beam 4×4, agentprm"]["success"] == 45.0
    assert f"At the tokens of beam 4×4 by AgentPRM: {sentence}" in quickstart.short_table({"runs": [run]})


def test_a_figure_within_six_points_has_not_moved() -> None:
    recorded = {"runs": [run_of(0, {"greedy": 50.0, "beam": 60.0})]}
    text, moved = quickstart.compare(run_of(0, {"greedy": 56.0, "beam": 54.5}), recorded)
    assert moved == []
    assert "| greedy | 50.0 | 56.0 | +6.0 |" in text


def test_a_fall_and_a_missing_figure_are_named() -> None:
    recorded = {"runs": [run_of(0, {"greedy": 50.0, "beam": 80.0, "gone": 1.0})]}
    _, moved = quickstart.compare(run_of(0, {"greedy": 50.0, "beam": 65.0, "new": 1.0}), recorded)
    assert moved == ["beam", "gone", "new"]


def test_a_seed_without_a_record_is_refused() -> None:
    with pytest.raises(DataError, match="no run with seed 3"):
        quickstart.compare(run_of(3, {}), {"runs": [run_of(0, {})]})


def test_the_table_shows_one_run_with_its_interval_and_several_with_every_seed() -> None:
    one = quickstart.table({"runs": [run_of(0, {"greedy": 50.0})]})
    assert "one run (seed 0)" in one
    assert "| greedy | 50.0 [45, 55] | 1,000 | 8.5 |" in one
    three = quickstart.table({"runs": [run_of(seed, {"greedy": 50.0 + seed}) for seed in (0, 1, 2)]})
    assert "3 seeds (0, 1, 2)" in three
    assert "| greedy | 51.0 (50.0, 51.0, 52.0) | 1,000 | 8.5 |" in three
