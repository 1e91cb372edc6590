"""Table, plots and summary from one evaluation; and what an evaluation may import."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from rlprm.errors import DataError
from rlprm.evaluation import plots
from rlprm.evaluation.baselines import best_free_baseline, task_kind
from rlprm.evaluation.bon import best_of_n, choose_aggregation, comparisons, gap_closed
from rlprm.evaluation.equal_cost import at_equal_cost
from rlprm.evaluation.pool import Pool
from rlprm.evaluation.quality import foresight, running, step_quality
from rlprm.evaluation.records import Comparison, EvaluationRecord, Measurement
from rlprm.evaluation.summary import Findings, summarize
from rlprm.evaluation.table import TABLE_WIDTH, gap_table, paired_table, results_tables
from tests.toys.evaluations import measurements, scored_pool
from tests.toys.trajectories import of_steps, step_scores


@pytest.fixture(scope="module")
def pool() -> Pool:
    return scored_pool(tasks=12)


@pytest.fixture(scope="module")
def found(pool: Pool) -> list[Measurement]:
    return measurements(pool)


def printed(width: int, *tables: Table) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in tables:
        console.print(table, highlight=False)
    return console.export_text().splitlines()


def test_the_table_has_a_row_per_strategy_and_a_column_per_budget(found: list[Measurement]) -> None:
    (table,) = results_tables([m.record for m in found], width=160)
    lines = printed(160, table)
    assert "12 tasks, end declared" in lines[0]
    (header,) = [number for number, line in enumerate(lines) if "strategy" in line]
    assert [f"N = {n}" in lines[header] for n in (1, 2, 4, 8, 16)] == [True] * 5
    body = lines[header + 2 :]
    assert [re.split(r" {2,}| \d", line)[0] for line in body] == [
        "greedy",
        "one sample",
        "best of N, agentprm (last)",
        "best of N, orm (last)",
        "best of N, random (last)",
        "best of N, shortest (last)",
        "beam N×4, agentprm (last)",
        "oracle (pass@N)",
    ]
    best = next(m.record for m in found if m.record.name == "best of 16, agentprm")
    cell = f"{100 * best.success_rate:.1f} [{100 * best.ci_low:.0f}, {100 * best.ci_high:.0f}]"
    (line,) = [line for line in body if "best of N, agentprm" in line]
    assert cell in line
    assert f"{best.total_tokens:,.0f}" in line


def renamed(found: list[Measurement], scorer: str) -> list[EvaluationRecord]:
    """The records, as if they were of a scorer with another name."""
    return [
        replace(m.record, scorer=scorer if m.record.scorer == "agentprm" else m.record.scorer) for m in found
    ]


@pytest.mark.parametrize("scorer", ["agentprm_x_policy", "a_reward_model_" * 6, "[bold]"])
@pytest.mark.parametrize("width", [60, TABLE_WIDTH, 120])
def test_no_line_is_wider_than_the_terminal_and_no_rate_is_lost(
    found: list[Measurement], scorer: str, width: int
) -> None:
    records = renamed(found, scorer)
    # Six budgets, tokens in billions, and the longest interval there is.
    records += [
        replace(r, n=64 * r.n, policy_tokens=1e9, ci_low=1.0, ci_high=1.0) for r in records if r.n > 8
    ]
    lines = printed(width, *results_tables(records, width=width))
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert len(re.findall(r"\[\d+, \d+\]", text)) == len(records)
    for record in records:
        assert f"{100 * record.success_rate:.1f}" in text
    assert "…" not in text


def test_at_80_columns_the_intervals_stand_below_the_rates(found: list[Measurement]) -> None:
    lines = printed(TABLE_WIDTH, *results_tables([m.record for m in found]))
    (row,) = [number for number, line in enumerate(lines) if line.startswith("best of N, orm")]
    orm = sorted((m.record for m in found if m.record.scorer == "orm"), key=lambda r: r.n)
    assert re.findall(r"\d+\.\d", lines[row]) == [f"{100 * r.success_rate:.1f}" for r in orm]
    assert re.findall(r"\[(.*?)\]", lines[row + 1]) == [
        f"{100 * r.ci_low:.0f}, {100 * r.ci_high:.0f}" for r in orm
    ]


def test_budgets_that_do_not_fit_get_a_table_of_their_own(found: list[Measurement]) -> None:
    tables = results_tables([m.record for m in found], width=50)
    headers = [[str(column.header) for column in table.columns] for table in tables]
    assert [n for header in headers for n in header if n.startswith("N")] == [
        f"N = {n}" for n in (1, 2, 4, 8, 16)
    ]
    assert len(headers) > 1
    assert ["tokens\nper task" in header for header in headers] == [False] * (len(headers) - 1) + [True]


def test_differences_and_gaps_are_tables_as_narrow(found: list[Measurement]) -> None:
    long = "a_reward_model_" * 6
    pairs = [Comparison(f"best of 16, {long}", "one sample", 0.125, -0.01, 0.26, 12)]
    lines = printed(TABLE_WIDTH, paired_table(pairs), gap_table({long: 0.5}, 16))
    assert max(map(len, lines)) <= TABLE_WIDTH
    assert any("+12.5 [-1.0, +26.0]" in line for line in lines)
    assert any(line.endswith("0.50") for line in lines)


def test_every_plot_is_written(pool: Pool, found: list[Measurement], tmp_path: Path) -> None:
    qualities = [step_quality(pool, name, calibrate=name == "agentprm") for name in ("agentprm", "random")]
    examples = plots.pick_examples(pool.trajectories, pool.scores_of("agentprm"))
    paths = plots.write_all(tmp_path / "plots", [m.record for m in found], qualities, examples, "agentprm")
    assert [path.name for path in paths] == [
        "success_by_budget.png",
        "success_by_compute.png",
        "searches_by_cost.png",
        "auc_by_position.png",
        "calibration.png",
        "example.png",
    ]
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000


def test_plots_without_data_are_left_out(pool: Pool, found: list[Measurement], tmp_path: Path) -> None:
    uncalibrated = [step_quality(pool, "shortest", calibrate=False)]
    paths = plots.write_all(tmp_path, [m.record for m in found], uncalibrated)
    assert {path.name for path in paths} == {
        "success_by_budget.png", "success_by_compute.png", "searches_by_cost.png", "auc_by_position.png",
    }  # fmt: skip
    without = plots.write_all(tmp_path, [m.record for m in found if not m.record.is_search], uncalibrated)
    assert "searches_by_cost.png" not in {path.name for path in without}
    with pytest.raises(DataError, match="none of the scorers has a calibration"):
        plots.calibration(uncalibrated, tmp_path / "calibration.png")


def test_actions_of_any_text_can_be_drawn(tmp_path: Path) -> None:
    made = of_steps(True, 3)
    texts = ("buy for $\\frac{$3", "two\nlines \x00", "long " * 20)
    odd = replace(made, steps=tuple(replace(s, action=a) for s, a in zip(made.steps, texts, strict=True)))
    plots.example([(odd, step_scores([0.1, -0.2, 1.3]))], "agentprm [v2] $x$", tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 5_000


def test_a_scorer_keeps_its_colour_and_no_two_share_one() -> None:
    colours = plots.colours_of(["a", "b", "a", "c"])
    assert list(colours) == ["a", "b", "c"]
    assert len(set(colours.values())) == 3


def test_examples_are_a_success_and_a_failure_of_one_task_where_there_are_such() -> None:
    solved = [of_steps(True, 3, task="solved", sample=i) for i in range(2)]
    mixed = [of_steps(i > 1, steps, task="mixed", sample=i) for i, steps in enumerate((2, 4, 3, 2))]
    scores = [[step_scores([0.5] * len(t.steps)) for t in row] for row in (solved, mixed)]
    picked = plots.pick_examples([solved, mixed], scores)
    assert [(t.task.id, t.sample) for t, _ in picked] == [("mixed", 2), ("mixed", 1)]
    assert [t.sample for t, _ in plots.pick_examples([solved], scores[:1])] == [0]


def test_the_summary_holds_what_was_found_as_plain_json(pool: Pool, found: list[Measurement]) -> None:
    curve = best_of_n(pool, "shortest", "last", range(1, 17))
    findings = Findings(
        found,
        choices=[choose_aggregation(pool, "agentprm", 8)],
        paired=comparisons(found, main="agentprm", n=16),
        quality=[step_quality(pool, "agentprm")],
        kind=task_kind(gap_closed(found), "shortest", 16),
        best_free=best_free_baseline(pool, {"shortest": "last", "random": "last"}, 16),
        foresight=foresight(pool, "agentprm"),
        running=running(pool, "agentprm"),
        equal_cost=[at_equal_cost(m, curve, "env_steps") for m in found if m.record.is_search],
    )
    compute = {"greedy": {"policy_flops": 1e9, "scorer_flops": None, "seconds": 0.5, "peak_memory": 1000}}
    summary = summarize(findings, seconds={"beam": 1.5}, peak_memory={"beam": 1000}, compute=compute)
    read = json.loads(json.dumps(summary, allow_nan=False))
    assert read == summary
    records = {m.record.name: m.record for m in found}
    assert read["policy"] == {
        "greedy": records["greedy"].success_rate,
        "sample_mean": records["one sample"].success_rate,
    }
    assert len(read["evaluation"]) == len(found)
    assert set(read["oracle"]) == {"1", "2", "4", "8", "16"}
    assert read["oracle"]["4"] == records["oracle (pass@4)"].success_rate
    assert set(read["gap_closed"]) == {"agentprm", "orm", "random", "shortest"}
    assert read["gap_closed"]["agentprm"]["1"] is None
    assert 0 < read["gap_closed"]["agentprm"]["8"] <= 1
    assert read["aggregation"]["agentprm"]["k"] == 8
    assert len(read["paired"]) == 6
    assert read["quality"]["agentprm"]["mid_auc"] > 0.5
    assert read["seconds"] == {"beam": 1.5}
    assert read["peak_memory"] == {"beam": 1000}
    assert read["compute"] == compute
    assert read["task_kind"]["kind"] == "reranking"
    assert read["best_free_baseline"]["name"] in ("shortest", "random")
    assert [point["share"] for point in read["foresight"]] == [0.25, 0.5, 0.75]
    assert [point["t"] for point in read["foresight_running"]] == [2, 4, 5]
    assert [c["search"] for c in read["equal_cost"]] == ["beam 2×4, agentprm", "beam 4×4, agentprm"]


def test_a_summary_of_searches_alone_needs_no_pool(found: list[Measurement]) -> None:
    summary = summarize(Findings([m for m in found if m.record.strategy in ("greedy", "beam")]))
    assert summary["policy"]["sample_mean"] is None
    assert summary["gap_closed"] == {}


def test_evaluation_needs_no_torch_and_no_reward_model() -> None:
    code = (
        "import sys\n"
        "from rlprm.evaluation import bon, plots, pool, quality, records, summary, table\n"
        "print(sorted({'torch', 'rlprm.prm', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
