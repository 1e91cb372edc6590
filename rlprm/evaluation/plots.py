"""Pictures of an evaluation, as PNG files.

``write_all`` makes them all; a scorer then has the same colour in each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from rlprm.errors import DataError
from rlprm.evaluation.quality import StepQuality
from rlprm.evaluation.records import (
    BEAM,
    BEST_OF_N,
    GREEDY,
    MAJORITY,
    ORACLE,
    SAMPLE_MEAN,
    SEARCH,
    UNTIL_ACCEPTED,
    EvaluationRecord,
)
from rlprm.evaluation.table import rows
from rlprm.types import StepScores, Trajectory

# Okabe and Ito's palette, told apart with any colour vision, and a brown; greys are left for the bounds.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#8B4513")
_BOUND = "#555555"
_STYLE: Any = {
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.0,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.parse_math": False,  # an action may hold prices: "$" is a dollar sign
}
_LONGEST_ACTION = 26
_CURVES = (BEST_OF_N, UNTIL_ACCEPTED, MAJORITY, ORACLE)
"""Strategies that have a row for every budget."""
_SHAPES = ("s", "o", "^", "v", "P", "X", "*", "h")
"""Of searches."""


def write_all(
    folder: Path,
    records: Sequence[EvaluationRecord],
    qualities: Sequence[StepQuality],
    examples: Sequence[tuple[Trajectory, StepScores]] = (),
    example_scorer: str = "",
    reference: Sequence[EvaluationRecord] = (),
) -> list[Path]:
    """Write every plot there is data for, and return the paths.

    Args:
        folder: made if it is missing.
        records: with one aggregation per scorer.
        qualities: of the scorers whose steps mean something.
        examples: from ``pick_examples``.
        example_scorer: whose scores the examples carry.
        reference: the curve, for all k, of what searches are compared with at equal cost.
    """
    colours = colours_of([*(r.scorer for r in records if r.scorer), *(q.scorer for q in qualities)])
    paths = [folder / "success_by_budget.png", folder / "success_by_compute.png"]
    success_by_budget(records, paths[0], colours)
    success_by_compute(records, paths[1], colours)
    if any(record.is_search for record in records):
        paths.append(folder / "searches_by_cost.png")
        searches_by_cost(records, reference, paths[-1], colours)
    if qualities:
        paths.append(folder / "auc_by_position.png")
        auc_by_position(qualities, paths[-1], colours)
    if any(quality.calibration for quality in qualities):
        paths.append(folder / "calibration.png")
        calibration(qualities, paths[-1], colours)
    if examples:
        paths.append(folder / "example.png")
        example(examples, example_scorer, paths[-1])
    return paths


def colours_of(scorers: Iterable[str]) -> dict[str, str]:
    """Give each scorer a colour, in order; the ninth has the first one's again."""
    return dict(zip(dict.fromkeys(scorers), cycle(_COLOURS), strict=False))


def success_by_budget(
    records: Sequence[EvaluationRecord], path: Path, colours: Mapping[str, str] | None = None
) -> None:
    """Plot success against the number of candidates, with 95 % bands, the oracle, greedy decoding and beams.

    A beam N×M stands at N·M, the number of actions it samples for a step.
    """
    records = [r for r in records if r.strategy != SEARCH]
    with _figure(path) as (figure, axes):
        colours = colours or colours_of(r.scorer for r in records if r.scorer)
        for row in rows(records):
            first = row[0]
            if first.strategy == BEAM:
                _mark_beams(axes, row, [r.n * r.m for r in row], colours)
            elif first.strategy == GREEDY:
                _mark(axes, first, 1.0)
            elif first.strategy in _CURVES:
                _curve(axes, row, [float(r.n) for r in row], colours)
        axes.set_xscale("log", base=2)
        budgets = sorted({r.n * r.m for r in records if r.strategy != SAMPLE_MEAN} | {1})
        axes.set_xticks(budgets, [str(n) for n in budgets])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("candidates per task, N (beam: N·M)")
        _success_axis(axes, records)
        axes.set_title(f"Success by search budget, {_tasks(records)}")
        _legend_outside(figure, axes)


def success_by_compute(
    records: Sequence[EvaluationRecord], path: Path, colours: Mapping[str, str] | None = None
) -> None:
    """Plot success against the tokens of policy and scorer together, logarithmic."""
    records = [r for r in records if r.strategy != SEARCH]
    with _figure(path) as (figure, axes):
        colours = colours or colours_of(r.scorer for r in records if r.scorer)
        for row in rows(records):
            first = row[0]
            if first.strategy == BEAM:
                _mark_beams(axes, row, [r.total_tokens for r in row], colours)
            elif first.strategy == GREEDY:
                _mark(axes, first, first.total_tokens)
            elif first.strategy in _CURVES:
                _curve(axes, row, [r.total_tokens for r in row], colours)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.set_xlabel("tokens per task, policy + PRM")
        _success_axis(axes, records)
        axes.set_title(f"Success by total compute, {_tasks(records)}")
        _legend_outside(figure, axes)


def searches_by_cost(
    records: Sequence[EvaluationRecord],
    reference: Sequence[EvaluationRecord],
    path: Path,
    colours: Mapping[str, str] | None = None,
) -> None:
    """Plot the success of searches against environment steps and against tokens, both logarithmic.

    Args:
        records: of the evaluation; greedy decoding and the oracle are shown beside the searches.
        reference: the curve, for all k, of what searches are compared with at equal cost.
        path: where to write.
        colours: of scorers.
    """
    colours = colours or colours_of(r.scorer for r in records if r.scorer)
    searches = [r for r in records if r.is_search]
    shape_of = dict(zip(dict.fromkeys(_search_name(r) for r in searches), cycle(_SHAPES), strict=False))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11.0, 4.4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        costs = (
            ("env_steps", "environment steps per task"),
            ("total_tokens", "tokens per task, policy + scorer"),
        )
        for axes, (cost, name) in zip(panels, costs, strict=True):
            for row, style in (([r for r in records if r.strategy == ORACLE], "--"), (reference, "-")):
                if row:
                    xs, ys = [getattr(r, cost) for r in row], [r.success_rate for r in row]
                    axes.plot(xs, ys, color=_BOUND, linestyle=style, linewidth=1.4, label=row[0].label)
            for record in records:
                if record.strategy == GREEDY:
                    _mark(axes, record, getattr(record, cost))
            for record in searches:
                name_of = _search_name(record)
                _mark(
                    axes, record, getattr(record, cost), colours[record.scorer or ""],
                    label=f"{name_of}, {record.scorer}", marker=shape_of[name_of],
                )  # fmt: skip
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            axes.set_xlabel(name)
        _success_axis(panels[0], [*reference, *searches])
        panels[1].set_ylabel("")
        panels[0].set_title(f"Searches at equal cost, {_tasks(searches)}")
        _legend_outside(figure, panels[0])
        _save(figure, path)


def _search_name(record: EvaluationRecord) -> str:
    return record.search or f"beam {record.n}×{record.m}"


def auc_by_position(
    qualities: Sequence[StepQuality], path: Path, colours: Mapping[str, str] | None = None
) -> None:
    """Plot each scorer's AUC of step values against success, by relative position in the trajectory."""
    colours = colours or colours_of(q.scorer for q in qualities)
    with _figure(path) as (figure, axes):
        axes.axhline(0.5, color=_BOUND, linestyle=":", linewidth=1, label="chance")
        for quality in qualities:
            points = [(p.position, p.auc) for p in quality.by_position if p.auc is not None]
            half = 0.5 / len(quality.by_position)
            xs, ys = [x - half for x, _ in points], [y for _, y in points]
            axes.plot(xs, ys, color=colours[quality.scorer], marker="o", markersize=4, label=quality.scorer)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("position in the trajectory, t / T (centre of the bin)")
        axes.set_ylabel("AUC of step value vs. success")
        axes.set_title("Do step values tell success from failure?")
        _legend_outside(figure, axes)


def calibration(
    qualities: Sequence[StepQuality], path: Path, colours: Mapping[str, str] | None = None
) -> None:
    """Plot observed against predicted success, and how often each prediction was made.

    Scorers without a calibration are left out.

    Raises:
        DataError: if none has one.
    """
    shown = [q for q in qualities if q.calibration is not None]
    if not shown:
        raise DataError("none of the scorers has a calibration to plot")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 5.6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        top.plot([0, 1], [0, 1], color=_BOUND, linestyle=":", linewidth=1, label="calibrated")
        colours = colours or colours_of(q.scorer for q in qualities)
        for quality in shown:
            assert quality.calibration is not None
            bins = [b for b in quality.calibration.bins if b.size]
            total = sum(b.size for b in bins)
            colour = colours[quality.scorer]
            label = f"{quality.scorer}, error {quality.calibration.expected_error:.3f}"
            means, rates = [b.mean_value for b in bins], [b.success_rate for b in bins]
            top.plot(means, rates, color=colour, marker="o", markersize=4, label=label)
            edges = [quality.calibration.bins[0].low, *(b.high for b in quality.calibration.bins)]
            bottom.stairs(
                [b.size / total for b in quality.calibration.bins], edges, color=colour, linewidth=1.4
            )
        top.set_ylim(-0.02, 1.02)
        top.set_xlim(-0.02, 1.02)
        top.set_ylabel("observed success rate")
        top.set_title("Calibration of step values")
        top.legend(loc="upper left")
        bottom.set_ylabel("share of steps")
        bottom.set_ylim(bottom=0)
        bottom.set_xlabel("predicted success, v_t")
        _save(figure, path)


def example(pairs: Sequence[tuple[Trajectory, StepScores]], scorer: str, path: Path) -> None:
    """Plot the promise along single trajectories, one panel each, with the actions as labels.

    Args:
        pairs: trajectories with their scores; see ``pick_examples``.
        scorer: its name, for the title.
        path: where to write.
    """
    longest = max(len(trajectory.steps) for trajectory, _ in pairs)
    with mpl.rc_context({**_STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(4.6 * len(pairs), 1.6 + 0.24 * longest), layout="constrained")
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
        for axes, (trajectory, scores) in zip(panels, pairs, strict=True):
            won = trajectory.outcome.success
            chain = (scores.initial, *scores.values)
            axes.plot(chain, range(len(chain)), color=_COLOURS[0 if won else 1], marker="o", markersize=4)
            names = [
                "(prompt)",
                *(f"{_shorten(s.action)}  {t}" for t, s in enumerate(trajectory.steps, start=1)),
            ]
            axes.set_yticks(range(len(chain)), names)
            axes.set_ylim(longest + 0.5, -0.5)  # time runs downwards, at the same pace in all panels
            axes.set_xlim(min(-0.04, *chain), max(1.04, *chain))
            axes.set_xlabel("promise v_t after the action")
            stop = trajectory.stop.value.replace("_", " ") if trajectory.stop else "unfinished"
            axes.set_title(f"{'Success' if won else 'Failure'} ({stop})\ntask {trajectory.task.id}")
        figure.suptitle(f"Promise along a trajectory, {scorer}", x=0.01, ha="left")
        _save(figure, path)


def pick_examples(
    rows_of_pool: Sequence[Sequence[Trajectory]], scores: Sequence[Sequence[StepScores | None]]
) -> list[tuple[Trajectory, StepScores]]:
    """Return a successful and a failed trajectory, where there are such, if possible of one task.

    The task is the first that has both; of each kind the longest is taken, since
    it shows most, and the first of equals.
    """
    by_task = [
        [(t, s) for t, s in zip(row, of_row, strict=True) if s is not None]
        for row, of_row in zip(rows_of_pool, scores, strict=True)
    ]
    mixed = [pairs for pairs in by_task if len({t.outcome.success for t, _ in pairs}) == 2]
    candidates = mixed[0] if mixed else [pair for pairs in by_task for pair in pairs]
    examples = []
    for won in (True, False):
        of_kind = [pair for pair in candidates if pair[0].outcome.success is won]
        if of_kind:
            examples.append(max(of_kind, key=lambda pair: len(pair[0].steps)))
    return examples


@contextmanager
def _figure(path: Path) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 4.4), layout="constrained")
        yield figure, figure.subplots()
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)  # no window system, whatever the user's settings
    figure.savefig(path, dpi=150)


def _curve(
    axes: Axes, row: Sequence[EvaluationRecord], xs: Sequence[float], colours: Mapping[str, str]
) -> None:
    first = row[0]
    bound = first.strategy == ORACLE
    colour = _BOUND if bound else colours.get(first.scorer or "", "black")  # a majority has no scorer
    order = sorted(range(len(row)), key=lambda i: xs[i])
    x, y = [xs[i] for i in order], [row[i].success_rate for i in order]
    # The same scorer may have a curve of best-of-N, and the two may lie on each other.
    style = "--" if bound else ":" if first.strategy == UNTIL_ACCEPTED else "-"
    axes.plot(x, y, color=colour, linestyle=style, marker="o", markersize=3.5, label=first.label)
    if not bound:
        low, high = [row[i].ci_low for i in order], [row[i].ci_high for i in order]
        axes.fill_between(x, low, high, color=colour, alpha=0.1, linewidth=0)
        for edge in (low, high):  # overlapping bands stay tellable
            axes.plot(x, edge, color=colour, alpha=0.35, linewidth=0.6)


def _mark_beams(
    axes: Axes, row: Sequence[EvaluationRecord], xs: Sequence[float], colours: Mapping[str, str]
) -> None:
    """Mark each beam, with its size beside it; one entry in the legend for all."""
    for index, (record, x) in enumerate(zip(row, xs, strict=True)):
        _mark(axes, record, x, colours[record.scorer or ""], label=record.label if index == 0 else None)
        at = (x, record.success_rate)
        axes.annotate(f"{record.n}×{record.m}", at, xytext=(6, -10), textcoords="offset points", fontsize=8)


def _mark(
    axes: Axes,
    record: EvaluationRecord,
    x: float,
    colour: str = "black",
    label: str | None = "greedy",
    marker: str = "s",
) -> None:
    y = record.success_rate
    errors = [[max(0.0, y - record.ci_low)], [max(0.0, record.ci_high - y)]]
    axes.errorbar(
        [x],
        [y],
        yerr=errors,
        color=colour,
        marker="D" if record.strategy == GREEDY else marker,
        markersize=6,
        markeredgecolor="white",
        elinewidth=1,
        linestyle="none",
        label=label,
        zorder=3,
    )


def _success_axis(axes: Axes, records: Sequence[EvaluationRecord]) -> None:
    axes.set_ylabel("success rate")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(max(0.0, min(r.ci_low for r in records) - 0.05), 1.02)


def _tasks(records: Sequence[EvaluationRecord]) -> str:
    tasks = "/".join(str(n) for n in sorted({r.tasks for r in records}))
    return f"{tasks} tasks, end {'/'.join(sorted({r.end for r in records}))}"


def _legend_outside(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")


def _shorten(action: str) -> str:
    line = "".join(c if c.isprintable() else "·" for c in " ".join(action.split()))
    return line if len(line) <= _LONGEST_ACTION else line[: _LONGEST_ACTION - 1] + "…"
