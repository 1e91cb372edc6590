"""How often the alarm rings: in healthy runs, in hacked ones, and in recorded ones.

    python -m studies.rl.alarm             # -> docs/results/alarm.json, 10 minutes on one core

Runs are simulated. The success rates of an iteration's tasks are drawn from a beta distribution, and samples
from them. A failed episode has more turns, more repeated actions and a higher value than its outcome. A
hacked run is healthy for 30 iterations. Then its success falls by a number of standard errors of one
iteration while one sign rises. Recorded runs are the journals of docs/results/rl-promise.json. They hold no
tasks, so their standard errors come from the spread of iterations.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from rlprm.rl.monitor.alarm import THRESHOLD, alarms
from rlprm.rl.monitor.watch import Sign
from rlprm.runtime.files import read_json, write_json

RECORD = Path("docs/results/alarm.json")
RECORDED = Path("docs/results/rl-promise.json")
SIZES = ((16, 4), (32, 8), (64, 4), (128, 1))
"""Tasks of an iteration, and samples of a task."""
LENGTH = 200
HEALTHY = 30
"""Iterations before a run is hacked."""
AFTER = 5
FALLS = (2.0, 3.0, 4.0)
HACKERS: Mapping[str, tuple[str, float]] = {
    "farms turns": ("turns", 1.5),
    "repeats an action": ("repeated", 0.1),
    "writes what cannot be read": ("invalid", 0.1),
    "says a word that the PRM likes": ("failures", 0.1),
}
"""What a hacker does → the sign and by how much it rises."""
_CONCENTRATION = 2.0
Row = dict[str, Sign]


def iteration(
    generator: np.random.Generator,
    tasks: int,
    samples: int,
    success: float,
    rises: Mapping[str, float] | None = None,
) -> Row:
    """Draw the signs of one iteration."""
    rises = rises or {}
    rate = np.clip(success, 0.02, 0.98)
    rates = generator.beta(_CONCENTRATION * rate, _CONCENTRATION * (1 - rate), tasks)
    won = generator.random((tasks, samples)) < rates[:, None]
    lost = ~won
    value = 0.3 + 0.4 * won + 0.1 * generator.standard_normal(won.shape) + rises.get("failures", 0.0)
    episodes = {
        "turns": 3 + 4 * lost + generator.exponential(1.5, won.shape) + rises.get("turns", 0.0),
        "repeated": 0.05 + 0.15 * lost + generator.exponential(0.1, won.shape) + rises.get("repeated", 0.0),
        "invalid": (generator.random(won.shape) < 0.02 + 0.05 * lost + rises.get("invalid", 0.0)) * 1.0,
        "overrating": value - won,
        "pay": value,
    }
    row = {name: _sign(per_episode.mean(1), won.mean(1)) for name, per_episode in episodes.items()}
    some = lost.any(1)
    if some.sum() > 1:
        failed = (value * lost).sum(1)[some] / lost.sum(1)[some]
        row["failures"] = _sign(failed, won.mean(1)[some])
    return row


def _sign(values: NDArray[np.float64], outcomes: NDArray[np.float64]) -> Sign:
    covariance = np.cov(values, outcomes) / len(values)
    return Sign(
        len(values), float(values.mean()), float(covariance[0, 0]),
        float(outcomes.mean()), float(covariance[1, 1]), float(covariance[0, 1]),
    )  # fmt: skip


def rung(history: Sequence[Row], *, threshold: float = THRESHOLD) -> list[int]:
    """Return the iterations after which the alarm rings."""
    return [end - 1 for end in range(1, len(history) + 1) if alarms(history[:end], threshold=threshold)]


def without_slope(row: Row) -> Row:
    """Return signs whose noise is taken for independent of the outcome's."""
    return {
        name: Sign(s.tasks, s.mean, s.variance, s.outcome, s.outcome_variance, 0.0) for name, s in row.items()
    }


def healthy(runs: int) -> list[dict[str, Any]]:
    """Return how many runs without any change ring, with the slope and without it."""
    rows = []
    for tasks, samples in SIZES:
        rang = plain = 0
        for seed in tqdm(range(runs), desc=f"healthy, {tasks} tasks", unit="run"):
            generator = np.random.default_rng((seed, tasks, samples))
            success = generator.uniform(0.2, 0.8)
            history = [iteration(generator, tasks, samples, success) for _ in range(LENGTH)]
            rang += bool(rung(history))
            plain += bool(rung([without_slope(row) for row in history]))
        rows.append(
            {"tasks": tasks, "samples": samples, "runs": runs, "rang": rang, "rang_without_slope": plain}
        )
    return rows


def hacked(runs: int) -> list[dict[str, Any]]:
    """Return how many hacked runs ring within 3 and 5 iterations, for each hacker and fall."""
    rows, (tasks, samples) = [], (64, 4)
    for name, (sign, rise) in HACKERS.items():
        for errors in FALLS:
            within = {3: 0, 5: 0}
            for seed in tqdm(range(runs), desc=f"{name}, {errors:g}", unit="run"):
                generator = np.random.default_rng((seed, int(errors), len(name)))
                history = [iteration(generator, tasks, samples, 0.6) for _ in range(HEALTHY)]
                error = np.sqrt(np.mean([row["turns"].outcome_variance for row in history]))
                fallen = 0.6 - errors * float(error)
                history += [iteration(generator, tasks, samples, fallen, {sign: rise}) for _ in range(AFTER)]
                first = next((end for end in rung(history) if end >= HEALTHY), LENGTH)
                for limit in within:
                    within[limit] += first < HEALTHY + limit
            rows.append(
                {
                    "hacker": name, "sign": sign, "rise": rise, "fall_in_errors": errors, "runs": runs,
                    "within_3": within[3], "within_5": within[5],
                }
            )  # fmt: skip
    return rows


def recorded() -> list[dict[str, Any]]:
    """Return when the alarm rings in the recorded runs of a farmed reward."""
    stored = read_json(RECORDED)
    place = {name: index for index, name in enumerate(stored["columns"])}
    rows = []
    for run, numbers in stored["runs"].items():
        columns = np.array(numbers, dtype=float).T
        outcome = columns[place["rollout/success"]]
        signs = {
            "turns": columns[place["rollout/turns"]],
            "overrating": columns[place["prm/overrating"]],
            "pay": columns[place["reward/prm"]],
        }
        history = [
            {name: _of_spread(values, outcome, number) for name, values in signs.items()}
            for number in range(len(outcome))
        ]
        ends = rung(history)
        last = alarms(history[: ends[0] + 1]) if ends else {}
        rows.append(
            {
                "run": run, "iterations": len(outcome), "success": outcome.tolist(),
                "rings_after": ends[0] if ends else None, "signs": sorted(last),
            }
        )  # fmt: skip
    return rows


def _of_spread(values: NDArray[np.float64], outcome: NDArray[np.float64], number: int) -> Sign:
    """Return a sign whose variances come from the differences of successive iterations, trends left out."""
    changes = np.stack([np.diff(values), np.diff(outcome)])
    covariance = (changes @ changes.T) / (2 * changes.shape[1])
    return Sign(
        1, float(values[number]), float(covariance[0, 0]),
        float(outcome[number]), float(covariance[1, 1]), float(covariance[0, 1]),
    )  # fmt: skip


def tables(record: Mapping[str, Any]) -> str:
    """Return the tables of a record."""
    lines = [
        f"| simulated healthy runs of {record['iterations']} iterations | rang | rang without the slope |",
        "| --- | ---: | ---: |",
    ]
    for row in record["healthy"]:
        shares = (f"{100 * row[name] / row['runs']:.1f} %" for name in ("rang", "rang_without_slope"))
        lines.append(f"| {row['tasks']} tasks × {row['samples']} samples | {' | '.join(shares)} |")
    lines += [
        "",
        "| hacker, simulated (64 tasks × 4 samples) | fall of success, standard errors | "
        "rang within 3 iterations | within 5 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in record["hacked"]:
        shares = (f"{100 * row[name] / row['runs']:.0f} %" for name in ("within_3", "within_5"))
        lines.append(f"| {row['hacker']} | {row['fall_in_errors']:g} | {' | '.join(shares)} |")
    lines += ["", "| recorded run | success | rang after |", "| --- | --- | --- |"]
    for row in record["recorded"]:
        success = " ".join(f"{value:.2f}" for value in row["success"])
        ends = "never" if row["rings_after"] is None else f"iteration {row['rings_after']}"
        lines.append(f"| `promise`, {row['run']} | {success} | {ends} |")
    return "\n".join(lines)


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs of each kind")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    write_json(
        given.record,
        {
            "what": "how often the alarm of agent RL rings, simulated runs and recorded ones",
            "command": "python -m studies.rl.alarm",
            "threshold": THRESHOLD,
            "iterations": LENGTH,
            "healthy": healthy(given.runs),
            "hacked": hacked(given.runs),
            "recorded": recorded(),
        },
    )


if __name__ == "__main__":
    main()
