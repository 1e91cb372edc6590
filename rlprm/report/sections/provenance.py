"""How a result was made: settings, versions, device, time, and what differs between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlprm.evaluation.records import EvaluationRecord
from rlprm.report.finding import Run
from rlprm.report.html import details, section, table
from rlprm.report.sections.evaluation import evaluation_records
from rlprm.report.values import percentages

__all__ = ["comparison_section", "cost_section", "differing_settings", "settings_section"]

_ABOUT_PLACE = (
    "output_dir",
    "root",
    "model",
    "prm",
    "trajectories",
    "scorers",
    "model_files",
    "base",
    "prm_files",
)
"""Settings that name folders: two runs differ in them by being two runs."""


def cost_section(run: Run) -> str:
    """Return what the stages of a run took, and by which code and machine."""
    lines = []
    for part in run.parts:
        if part.is_finished:
            made = part.record.get("made") or {}
            commit = made.get("commit")
            changed = ", changed files" if made.get("changed_files") else ""
            lines.append((
                run.title_of(part), part.stage, part.record.get("seconds"), made.get("rlprm"),
                f"{commit[:9]}{changed}" if isinstance(commit, str) else None, made.get("processor"),
                made.get("threads"), _libraries(made),
            ))  # fmt: skip
    head = ("folder", "stage", "seconds", "rlprm", "commit", "processor", "threads", "libraries")
    return section("How it was made", table(head, lines))


def settings_section(run: Run) -> str:
    """Return the settings of every stage of a run."""
    parts = [
        details(
            f"{run.title_of(part)} ({part.stage})", table(("setting", "value"), _flat(part.config).items())
        )
        for part in run.parts
        if part.config
    ]
    return section("Settings", *parts)


def comparison_section(runs: Sequence[Run]) -> str:
    """Return several runs side by side: which settings differ, and which results."""
    if len(runs) < 2:
        return ""
    names = [run.name for run in runs]
    settings = [(f"{stage}: {name}", *values) for stage, name, values in differing_settings(runs)]
    return section(
        "The runs side by side",
        table(("setting that differs", *names), settings),
        table(("success in %", *names), _results(runs)),
    )


def differing_settings(runs: Sequence[Run]) -> list[tuple[str, str, list[str | None]]]:
    """Return stage, setting and its value in each run, where values differ; None where a run has none.

    Settings that name folders are left out.
    """
    found = []
    stages = dict.fromkeys(part.stage for run in runs for part in run.parts)
    for stage in stages:
        of_runs = [[_flat(part.config) for part in run.of(stage)] for run in runs]
        if not all(len(parts) == 1 for parts in of_runs):
            continue  # which of several belongs to which is not known
        flat = [parts[0] for parts in of_runs]
        for name in dict.fromkeys(name for settings in flat for name in settings):
            values = [settings.get(name) for settings in flat]
            if len(set(values)) > 1 and name.partition(".")[0] not in _ABOUT_PLACE:
                found.append((stage, name, values))
    return found


def _results(runs: Sequence[Run]) -> list[tuple[object, ...]]:
    records = [evaluation_records(run) for run in runs]
    names = dict.fromkeys(name for of_run in records for name in of_run)
    return [(name, *(_rate(of_run.get(name)) for of_run in records)) for name in names]


def _rate(record: EvaluationRecord | None) -> str | None:
    return None if record is None else percentages(record.success_rate, record.ci_low, record.ci_high)


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return nested settings under dotted names, with values as text."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{above}{name}.")
        else:
            flat[f"{above}{name}"] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return flat


def _libraries(made: Mapping[str, Any]) -> str:
    libraries = made.get("libraries") or {}
    return ", ".join(f"{name} {version}" for name, version in libraries.items() if version)
