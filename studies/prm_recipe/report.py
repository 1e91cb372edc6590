"""The variants of the study side by side: a table, and docs/results/prm-recipe.json.

    python -m studies.prm_recipe.report --folder runs/study --seeds 0 1 2
    python -m studies.prm_recipe.report --baseline head_states \
      --variants head_beta0 head_lam1 --output docs/results/prm-recipe-head.json

Only variants that were measured with every one of the seeds appear.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlprm.errors import ConfigError
from rlprm.functional.aggregation import AGGREGATIONS
from rlprm.functional.statistics.bootstrap import mean_interval, paired_interval
from rlprm.runtime.files import read_json, write_json
from studies.prm_recipe.run import BASELINE, BEAM_TASKS, BUDGETS, POOL_TASKS, VARIANTS, N


def report(root: Path, seeds: Sequence[int], output: Path, *, baseline: str, names: Sequence[str]) -> None:
    """Put measured variants side by side; intervals are paired over dev tasks, seeds averaged.

    Raises:
        ConfigError: if the baseline was not measured with every seed.
    """
    runs = {
        name: [read_json(root / f"s{seed}" / "measured" / f"{name}.json") for seed in seeds]
        for name in dict.fromkeys([baseline, *names])
        if all((root / f"s{seed}" / "measured" / f"{name}.json").exists() for seed in seeds)
    }
    if baseline not in runs:
        raise ConfigError(f"{baseline} was not measured with each of the seeds {list(seeds)} in {root}")
    rows = [_row(name, of_variant, runs[baseline]) for name, of_variant in runs.items()]
    table = Table(title=f"dev tasks, {len(seeds)} seeds; differences from '{baseline}' with 95 % intervals")
    for heading in _COLUMNS:
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=200).print(table)
    write_json(
        output,
        {
            "what": "rlprm train-prm on recipes/babyai/train_prm_paper_tiny.yaml, one change at a time",
            "commands": [
                "python -m studies.prm_recipe.run train",
                "python -m studies.prm_recipe.run measure",
                f"python -m studies.prm_recipe.report --baseline {baseline} --variants {' '.join(names)}",
            ],
            "baseline": baseline,
            "seeds": list(seeds),
            "dev_tasks": POOL_TASKS,
            "beam_tasks": BEAM_TASKS,
            "variants": rows,
        },
    )


def _row(
    name: str, runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    last = [run["best_of_n"]["last"][str(N)] for run in runs]
    sample, best = ([run[bound] for run in runs] for bound in ("sample", "oracle"))
    gap = [
        (_mean_of(a) - _mean_of(s)) / (_mean_of(o[str(N)]) - _mean_of(s))
        for a, s, o in zip(last, sample, best, strict=True)
    ]
    actions = [run["actions"] for run in runs]
    return {
        "variant": name,
        "about": VARIANTS[name].about,
        "settings": dict(VARIANTS[name].settings),
        "sample": _compared(sample),
        "oracle": _compared([o[str(N)] for o in best]),
        "best_of_n": {
            rule: {
                n: _compared(*([run["best_of_n"][rule][n] for run in side] for side in (runs, baseline)))
                for n in map(str, BUDGETS)
            }
            for rule in AGGREGATIONS
        },
        "gap_closed": {"mean": sum(gap) / len(gap), "seeds": gap},
        **{
            beam: _compared(*([run[beam] for run in side] for side in (runs, baseline)))
            for beam in ("beam", "beam_min")
        },
        **{key: [run[key] for run in runs] for key in ("auc", "auc_within_task", "seconds")},
        "actions": {
            key: [None if of_seed[key] is None else of_seed[key]["mean"] for of_seed in actions]
            for key in (
                "rank_correlation", "pairwise_accuracy", "gain", "attainable", "ceiling", "score_spread",
                "value_spread",
            )
        },
    }  # fmt: skip


def _compared(
    runs: Sequence[Mapping[str, float]], baseline: Sequence[Mapping[str, float]] | None = None
) -> dict[str, Any]:
    """Return success rates per seed, their mean, and the paired difference from the baseline."""
    found: dict[str, Any] = {"seeds": [_mean_of(run) for run in runs]}
    values = _over_seeds(runs)
    found["mean"], found["low"], found["high"] = mean_interval(values)
    if baseline is not None:
        difference = paired_interval(values, _over_seeds(baseline))
        found["difference"] = {"mean": difference.mean, "low": difference.low, "high": difference.high}
    return found


def _over_seeds(runs: Sequence[Mapping[str, float]]) -> list[float]:
    """Average each task over the seeds: tasks are what varies independently, seeds share them."""
    return [sum(run[task] for run in runs) / len(runs) for task in sorted(runs[0])]


def _mean_of(successes: Mapping[str, float]) -> float:
    return sum(successes.values()) / len(successes)


_COLUMNS = (
    "variant", f"BoN@{N}", "difference", "gap closed", "best rule", "beam", "difference",
    "beam (min)", "difference", "AUC", "in task", "rank corr.", "pairs", "gain", "spread",
)  # fmt: skip


def _cells(row: Mapping[str, Any]) -> list[str]:
    at_n = {rule: of_rule[str(N)] for rule, of_rule in row["best_of_n"].items()}
    best = max(at_n, key=lambda rule: at_n[rule]["mean"])
    actions = {key: _average(values) for key, values in row["actions"].items()}
    return [
        row["variant"],
        f"{100 * at_n['last']['mean']:.1f}",
        _difference(at_n["last"]),
        f"{row['gap_closed']['mean']:.2f}",
        f"{best} {100 * at_n[best]['mean']:.1f}",
        f"{100 * row['beam']['mean']:.1f}",
        _difference(row["beam"]),
        f"{100 * row['beam_min']['mean']:.1f}",
        _difference(row["beam_min"]),
        f"{_average(row['auc']):.3f}",
        f"{_average(row['auc_within_task']):.3f}",
        f"{actions['rank_correlation']:.2f}",
        f"{actions['pairwise_accuracy']:.2f}",
        f"{actions['gain']:.1f} of {actions['attainable']:.1f}",
        f"{actions['score_spread']:.3f} / {actions['value_spread']:.3f}",
    ]


def _difference(found: Mapping[str, Any]) -> str:
    d = found["difference"]
    return f"{100 * d['mean']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]"


def _average(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else float("nan")


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/study"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--baseline", default=BASELINE, choices=list(VARIANTS), metavar="NAME")
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/results/prm-recipe.json"))
    arguments = parser.parse_args()
    report(
        arguments.folder,
        arguments.seeds,
        arguments.output,
        baseline=arguments.baseline,
        names=arguments.variants,
    )


if __name__ == "__main__":
    main()
