"""A run at a glance: success, reward shares, values of the PRM, how far the policy moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["plot_curves"]

_PANELS = (
    ("outcome", ("rollout/success", "eval/success", "eval/greedy", "rollout/score", "eval/score")),
    (
        "ends: declared, and declared and successful",
        (
            "rollout/declared",
            "rollout/declared_success",
            "eval/declared",
            "eval/declared_success",
            "eval/greedy_declared_success",
        ),
    ),
    ("reward per episode", ("reward/prm", "reward/outcome", "reward/total")),
    ("PRM: value at the end of episodes", ("prm/final_value", "prm/failures", "prm/overrating")),
    ("KL to the old policy and share clipped", ("ppo/approx_kl", "ppo/clip_fraction")),
    ("entropy and explained variance", ("ppo/entropy", "ppo/explained_variance")),
    ("turns", ("rollout/turns",)),
    ("repeated and invalid actions", ("rollout/repeated_actions", "rollout/invalid_actions")),
    ("seconds", ("time/rollout", "time/score", "time/evaluate", "time/update")),
)


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the metrics of a run over its iterations."""
    figure, axes = plt.subplots(3, 3, figsize=(15, 10), layout="constrained")
    for axis, (title, names) in zip(axes.flat, _PANELS, strict=True):
        for name in names:
            points = _points(rows, name)
            is_the_same = name.endswith("/score") and points == _points(rows, name[:-5] + "success")
            if points and not is_the_same:
                marker = "o" if name.startswith("eval") else None
                axis.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3)
        axis.set_title(title)
        axis.set_xlabel("iteration")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(row["iteration"], row[name]) for row in rows if name in row]
