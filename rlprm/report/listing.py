"""Runs as text for the terminal: what is there, and what differs between some of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rlprm.functional.statistics.bootstrap import paired_interval
from rlprm.report.finding import Part, Run
from rlprm.report.sections.evaluation import evaluation_records, records_of
from rlprm.report.sections.provenance import differing_settings
from rlprm.report.values import read_mapping

__all__ = ["compare", "listing"]

_WHEN = ("before", "after")


def listing(runs: Sequence[Run], root: str) -> str:
    """Return a line for each run: its stages, when the last one ended, and its main result."""
    if not runs:
        return f"{root} holds no runs"
    lines = []
    for run in runs:
        stages = ", ".join(
            dict.fromkeys(p.stage if p.is_finished else f"{p.stage} (unfinished)" for p in run.parts)
        )
        lines.append(f"{run.name:<28} {_when(run)}  {stages}")
        lines += [f"{'':<28} {text}" for part in run.parts if (text := _headline(run, part))]
    return "\n".join(lines)


def compare(runs: Sequence[Run]) -> str:
    """Return the settings that differ between runs, and their results side by side.

    Policies after agent RL are compared in pairs of tasks, if runs measured the same ones.
    """
    names = [run.name for run in runs]
    lines = ["settings that differ: " + " | ".join(names)]
    for stage, name, values in differing_settings(runs):
        lines.append(f"  {stage} {name}: " + " | ".join("–" if v is None else v for v in values))
    lines.append("success in %: " + " | ".join(names))
    rates = [evaluation_records(run) for run in runs]
    for name in dict.fromkeys(name for of_run in rates for name in of_run):
        cells = (f"{100 * of_run[name].success_rate:.1f}" if name in of_run else "–" for of_run in rates)
        lines.append(f"  {name}: " + " | ".join(cells))
    lines += _paired_policies(runs)
    return "\n".join(lines)


def _paired_policies(runs: Sequence[Run]) -> list[str]:
    measured = [
        (run.title_of(part) if len(run.parts) > 1 else run.name, _samples(part))
        for run in runs
        for part in run.of("train-rl")
    ]
    measured = [(name, samples) for name, samples in measured if samples]
    if len(measured) < 2:
        return []
    (first, of_first), *others = measured
    lines = ["policies after agent RL, one sample, points of success on the same test tasks:"]
    for name, samples in others:
        tasks = sorted(of_first.keys() & samples.keys())
        if not tasks:
            lines.append(f"  {name} and {first} were measured on different tasks")
            continue
        ours, theirs = ([100 * of[task] for task in tasks] for of in (samples, of_first))
        gap = paired_interval(ours, theirs)
        lines.append(
            f"  {name} - {first}: {gap.mean:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}] ({len(tasks)} tasks)"
        )
    return lines


def _samples(part: Part) -> dict[str, float]:
    found = read_mapping(part.folder / "after.json").get("sample")
    return found if isinstance(found, dict) else {}


def _headline(run: Run, part: Part) -> str:
    title = run.title_of(part)
    if part.stage == "evaluate":
        records = records_of(part)
        best = max((r for r in records if r.strategy != "oracle"), key=lambda r: r.success_rate, default=None)
        one = next((r for r in records if r.strategy == "sample_mean"), None)
        if best is not None and one is not None:
            rate, top = 100 * one.success_rate, 100 * best.success_rate
            return f"{title}: one sample {rate:.1f} %, {best.name} {top:.1f} %"
    if part.stage == "train-rl":
        summary = read_mapping(part.folder / "summary.json")
        before, after = (((summary.get(when) or {}).get("sample") or {}).get("mean") for when in _WHEN)
        if before is not None and after is not None:
            return f"{title}: one sample {100 * before:.1f} % before, {100 * after:.1f} % after"
    return ""


def _when(run: Run) -> str:
    ends = [(part.folder / "stage.json").stat().st_mtime for part in run.parts if part.is_finished]
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(max(ends))) if ends else f"{'–':<16}"
