"""Training: the curves of agent RL and of reward models, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlprm.report.charts import Series, line_chart
from rlprm.report.finding import Part
from rlprm.report.html import cell, details, note, section, table, warning
from rlprm.report.values import read_lines, read_mapping

__all__ = ["PANELS", "rl_section", "training_section"]

PANELS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Outcome",
        "Success and score of the sampled training episodes, and of dev tasks where they were measured. A "
        "rise of the PRM's reward without a rise here is reward hacking.",
        ("rollout/success", "rollout/score", "eval/success", "eval/greedy", "eval/score"),
    ),
    (
        "Ends",
        "Share of episodes that the agent ended itself, and of those that also succeeded.",
        ("rollout/declared", "rollout/declared_success", "eval/declared", "eval/declared_success"),
    ),
    (
        "Reward per episode",
        "What the PRM and the environment paid, as the advantage sees them.",
        ("reward/prm", "reward/outcome", "reward/total", "reward/kl_penalty"),
    ),
    (
        "Values of the PRM",
        "At the end of episodes, of failures alone, and how far values lie above outcomes.",
        ("prm/final_value", "prm/failures", "prm/successes", "prm/overrating", "prm/auc"),
    ),
    (
        "How far the policy moves",
        "KL to the policy that sampled, share of clipped steps, and how far the sampler is from the trainer.",
        ("ppo/approx_kl", "ppo/clip_fraction", "ppo/sampler_mismatch"),
    ),
    ("Entropy and critic", "A fall to 0 ends exploration.", ("ppo/entropy", "ppo/explained_variance")),
    (
        "Share of the PRM",
        "Cov(α p, A) / Var(A): how much of the advantage is the PRM's.",
        ("credit/prm_share",),
    ),
    ("Turns", "Turns of an episode; a steady rise without success is farming.", ("rollout/turns",)),
    (
        "Repeated and invalid actions",
        "Shares of all actions.",
        ("rollout/repeated_actions", "rollout/invalid_actions", "rollout/cut_messages"),
    ),
    (
        "Seconds",
        "Of each phase of an iteration.",
        ("time/rollout", "time/score", "time/evaluate", "time/update"),
    ),
)
"""Title, meaning and metrics of each panel of a run of agent RL."""


def rl_section(part: Part, title: str) -> str:
    """Return the curves of a run of agent RL, with the policy before and after."""
    journal = read_lines(part.folder / "metrics.jsonl")
    summary = read_mapping(part.folder / "summary.json")
    state = "" if part.is_finished else "This run goes on, or was killed. "
    charts = "".join(_panel(journal, *panel) for panel in PANELS)
    return section(
        title,
        *_alarms(journal, summary),
        _before_after(summary),
        f'<div class="charts">{charts}</div>' if charts else "",
        details("Every iteration", _iterations(journal)),
        about=f"{state}{len(journal)} iterations.",
    )


def training_section(part: Part, title: str) -> str:
    """Return the results of sft or train-prm."""
    results = {name: value for name, value in part.results.items() if not isinstance(value, (dict, list))}
    return section(title, *_deceiving(results), table(("result", "value"), results.items()))


def _panel(journal: Sequence[Mapping[str, Any]], title: str, about: str, names: Sequence[str]) -> str:
    chart = line_chart(_curves(journal, names), x_label="iteration", y_label=title.lower())
    return f"<div><h4>{cell(title)}</h4>{note(about)}{chart}</div>" if chart else ""


def _curves(journal: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Series]:
    found: list[Series] = []
    for name in names:
        rows = [row for row in journal if _is_number(row.get(name)) and _is_number(row.get("iteration"))]
        series = Series(name, [row["iteration"] for row in rows], [float(row[name]) for row in rows])
        same = any(s.x == series.x and s.y == series.y for s in found)  # a score of 0 or 1 is the success
        if rows and not same:
            found.append(series)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _before_after(summary: Mapping[str, Any]) -> str:
    before, after, difference = (summary.get(name) or {} for name in ("before", "after", "difference"))
    lines = []
    for name, label in (
        ("sample", "one sample"),
        ("greedy", "greedy"),
        ("sample_score", "score, one sample"),
    ):
        if isinstance(before.get(name), dict) and isinstance(after.get(name), dict):
            change = difference.get(name) or {}
            gain = (
                "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**_points(change)) if "low" in change else None
            )
            lines.append((label, _points(before[name])["mean"], _points(after[name])["mean"], gain))
    tasks = after.get("tasks") or before.get("tasks")
    head = ("test tasks" + (f" ({tasks})" if tasks else ""), "before, %", "after, %", "difference in points")
    return table(head, lines)


def _points(interval: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(100 * value, 1) for name, value in interval.items() if _is_number(value)}


def _alarms(journal: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Iterator[str]:
    for text in summary.get("alarm") or ():
        yield warning(f"The alarm of reward hacking rang: {text}")
    skipped = sum(row.get("ppo/skipped_steps", 0) for row in journal)
    if skipped:
        yield warning(f"{skipped} steps were left out, since their gradients or ratios were not finite.")


def _deceiving(results: Mapping[str, Any]) -> Iterator[str]:
    last = results.get("eval_auc_last")
    if _is_number(last) and last <= 0.55:  # type: ignore[operator]
        yield warning(f"Values at the last step hardly tell success from failure (AUC {last:.2f}).")


def _iterations(journal: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        "rollout/success",
        "eval/success",
        "reward/total",
        "ppo/approx_kl",
        "ppo/entropy",
        "rollout/turns",
    )
    shown = [name for name in columns if any(name in row for row in journal)]
    lines = [(str(row.get("iteration")), *(row.get(name) for name in shown)) for row in journal]
    return table(("iteration", *shown), lines)
