"""The tables of the protocol, as Markdown, from the records: ``python -m studies.protocol.report``.

``python scripts/make_pages.py`` writes the same tables into docs/results.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rlprm.evaluation.baselines import GUIDANCE
from studies.protocol import records
from studies.protocol.arms import PRIMARY, REDUCED, REFERENCE, TRANSCRIPT
from studies.protocol.compare import PLANNED_SEEDS, Difference, Place, detectable, difference, primary, rates
from studies.protocol.records import Record

_ENDPOINTS = {"beam": "beam 4×4", "best_of_n": "best of 16"}
_FREE = {
    "one_sample": "one sample",
    "greedy": "greedy",
    "majority": "majority of 16",
    "oracle": "oracle (pass@16)",
}
_OF_ACTIONS = (("rank_correlation", "{:.2f}"), ("pairwise_accuracy", "{:.2f}"), ("gain", "{:+.1f}"))
_QUARTERS = ("0.25", "0.5", "0.75")


def section(found: Sequence[Record]) -> str:
    """Return the tables of all records, an environment and group after the other.

    Raises:
        MismatchError: for records of one group with different settings.
    """
    if not found:
        return "No unit has been recorded yet."
    parts = []
    for (environment, group), of_group in groupby(found, lambda r: (r["environment"], r["group"])):
        same = list(of_group)
        records.require_same_settings(same)
        scale = same[0]["scale"]
        trial = "" if scale == 1.0 else f", a trial at scale {scale:g}, no result"
        parts.append("\n\n".join([f"### {environment}, {group}: {_number(same)}{trial}", *_tables(same)]))
    return "\n\n".join(parts)


def _tables(same: Sequence[Record]) -> Iterable[str]:
    yield _about(same)
    yield _success_table(same)
    about = {name: arm["about"] for name, arm in _in_all(same, "arms").items() if name != REFERENCE}
    if same[0]["group"] == "primary":
        arms = [name for name in REDUCED.get(same[0]["environment"], PRIMARY) if name in about]
        yield "Primary comparisons" + _over(same)
        yield _primary_table(primary(same, {name: about[name] for name in arms}))
        about = {name: text for name, text in about.items() if name not in arms}
    exploratory = [*_of_arms(same, about), *_of_searches(same), *_of_baselines(same)]
    yield "Exploratory comparisons" + _over(same)
    yield _difference_table(exploratory)
    yield "How well values tell success from failure, and actions of one state from each other"
    yield _quality_table(same)


def _of_arms(same: Sequence[Record], about: Mapping[str, str]) -> list[Difference]:
    endpoint = same[0]["endpoint"]
    return [
        difference(same, f"{text} − AgentPRM", (endpoint, arm), (endpoint, REFERENCE))
        for arm, text in about.items()
    ]


def _of_searches(same: Sequence[Record]) -> list[Difference]:
    """Compare searches with the beam 4×4, and with sampling until success shows, at equal cost."""
    searches = _in_all(same, "search").items()
    found = [
        difference(same, f"{row['about']} − beam 4×4", ("search", name), ("beam", REFERENCE))
        for name, row in searches
    ]
    for name in _in_all(same, "equal_cost"):
        ks = _mean([record["equal_cost"][name]["n"] for record in same])
        cost = f"at equal {_cost(name)}"
        if any(record["equal_cost"][name]["beyond_pool"] for record in same):
            cost = f"which costs fewer {_cost(name)}: the pool ends there"
        text = f"{_searched(name)} − until `transcript` shows success, at most {ks:.1f} episodes, {cost}"
        found.append(difference(same, text, _place(name), ("equal_cost", name)))
    return found


def _of_baselines(same: Sequence[Record]) -> list[Difference]:
    endpoint = same[0]["endpoint"]
    return [
        difference(same, f"AgentPRM − {text}", (endpoint, REFERENCE), place)
        for text, place in _baselines(same)
    ]


def _about(same: Sequence[Record]) -> str:
    first = same[0]
    processors = sorted({record["made"]["processor"] for record in same})
    commits = sorted({(record["made"]["commit"] or "unknown")[:9] for record in same})
    minutes = [record["seconds"]["total"] / 60 for record in same]
    steps = [record["rollouts"]["env_steps"] for record in same]
    count = len(first["tasks"])
    trainings = sorted({len(arm["training"]) for record in same for arm in record["arms"].values()})
    many = trainings[-1] > 1
    left = ", ".join(sorted({name for record in same for name in record.get("left", [])}))
    not_made = f"Not made yet: {left}. " if left else ""
    estimates = [
        r["estimates"]["env_steps"] for r in same if r["estimates"] and "env_steps" in r["estimates"]
    ]
    labels = f", Monte-Carlo labels {_mean(estimates):,.0f} more" if estimates else ""
    trained = sorted({t["steps"] for r in same for arm in r["arms"].values() for t in arm["training"]})
    return (
        f"Endpoint: success of {_ENDPOINTS[first['endpoint']]}. {count} test tasks per seed, "
        f"{' or '.join(map(str, trainings))} training{'s' if many else ''} of each reward model"
        f"{', averaged first' if many else ''}. "
        f"{not_made}"
        f"The rollouts that trained them took {_mean(steps):,.0f} steps{labels}. "
        f"Optimiser steps of each reward model: {' or '.join(f'{steps:,}' for steps in trained)}. "
        f"{_closed(same)}"
        f"A unit took {sum(minutes) / len(minutes):.0f} minutes. "
        f"Processor: {'; '.join(processors)}. Commit: {', '.join(commits)}. `{first['command']}`"
    )


def _closed(same: Sequence[Record]) -> str:
    """Return how much of the gap the transcript rule closes, the first question of a table."""
    if TRANSCRIPT not in same[0]["best_of_n"]:
        return ""
    one, oracle = (_mean(rates(same, ("free", name))) for name in ("one_sample", "oracle"))
    if oracle <= one:
        return ""
    closed = (_mean(rates(same, ("best_of_n", TRANSCRIPT))) - one) / (oracle - one)
    return f"The rule `transcript` closes {100 * closed:.0f} % of the gap between one sample and the oracle. "


def _success_table(same: Sequence[Record]) -> str:
    rows = [(text, ("free", name)) for name, text in _FREE.items() if name in same[0]["free"]]
    for part, title in (("best_of_n", "best of 16"), ("beam", "beam 4×4")):
        rows += [(f"{title}, {_named(name)}", (part, name)) for name in _in_all(same, part)]
    rows += [(row["about"], ("search", name)) for name, row in _in_all(same, "search").items()]
    header = ["success in %", "mean", "each seed", "rule", "on dev", "tokens per task", "steps per task"]
    return _table(header, [_success_row(same, text, place) for text, place in rows])


def _success_row(same: Sequence[Record], text: str, place: Place) -> list[str]:
    part, name = place
    of_seeds = rates(same, place)
    costs = [record[part][name]["costs"] for record in same]
    on_dev = [max(record[part][name]["dev"].values()) for record in same if "dev" in record[part][name]]
    rules = sorted({str(record[part][name]["aggregation"]) for record in same} - {"None"})
    return [
        text,
        f"{_mean(of_seeds):.1f}",
        ", ".join(f"{rate:.1f}" for rate in of_seeds),
        ", ".join(rules),
        f"{100 * _mean(on_dev):.1f}" if on_dev else "",
        f"{_mean([cost['total_tokens'] for cost in costs]):,.0f}",
        f"{_mean([cost['env_steps'] for cost in costs]):,.1f}",
    ]


def _primary_table(found: Sequence[Difference]) -> str:
    can_detect = detectable(found)
    seeds = max(PLANNED_SEEDS, *(len(d.seeds) for d in found))
    header = [
        "points of success",
        "difference",
        "each seed",
        "p (Holm)",
        f"detectable with 80 %, {seeds} seeds",
    ]
    return _table(
        header,
        [
            [
                d.name,
                _interval(d),
                _each(d),
                "one run" if d.corrected is None else _p(d.corrected),
                "one run" if d.name not in can_detect else f"{can_detect[d.name]:.1f}",
            ]
            for d in found
        ],
    )


def _difference_table(found: Sequence[Difference]) -> str:
    return _table(
        ["points of success", "difference", "each seed"], [[d.name, _interval(d), _each(d)] for d in found]
    )


def _quality_table(same: Sequence[Record]) -> str:
    quarters = [f"{float(q):.0%}".replace("%", " %") for q in _QUARTERS]
    header = [
        "",
        *(f"AUC in task after {q} of the mean length, running episodes" for q in quarters),
        *(f"AUC in task at {q}" for q in quarters),
        *("rank correlation", "pairs in order", "gain of choosing"),
    ]
    rows = []
    for name in _in_all(same, "quality"):
        of_scorer = [record["quality"][name] for record in same]
        cells = [
            _average([auc[q]["within_tasks"] for quality in of_scorer for auc in quality[part]], "{:.2f}")
            for part in ("auc_running", "auc")
            for q in _QUARTERS
        ]
        actions = [a for quality in of_scorer for a in quality["actions"] if a is not None]
        for key, form in _OF_ACTIONS:
            cells.append(_average([a[key] and a[key]["mean"] for a in actions], form))
        rows.append([_named(name), *cells])
    return _table(header, rows)


def _baselines(same: Sequence[Record]) -> list[tuple[str, Place]]:
    """Return greedy, and at the endpoint the free scorer with the highest mean success on dev tasks."""
    first, endpoint = same[0], same[0]["endpoint"]
    free = [name for name in first[endpoint] if name not in first["arms"]]
    best = max(free, key=lambda name: _mean([max(r[endpoint][name]["dev"].values()) for r in same]))
    found: list[tuple[str, Place]] = [
        ("greedy", ("free", "greedy")),
        (f"best free baseline there ({_named(best)})", (endpoint, best)),
    ]
    if first["kind"] == GUIDANCE and "transcript" in first["best_of_n"]:
        found.append(("best of 16 by `transcript`", ("best_of_n", "transcript")))
    return found


def _in_all(same: Sequence[Record], part: str) -> dict[str, Any]:
    """Return the entries of a record's part that every record has; a unit may have stopped before an arm."""
    first: dict[str, Any] = same[0][part]
    return {name: row for name, row in first.items() if all(name in record[part] for record in same)}


def _place(name: str) -> Place:
    """Return the search that a row of equal cost belongs to."""
    searched = name.rpartition(", ")[0]
    part, _, scorer = searched.partition(" ")
    return ("beam", scorer) if part == "beam" else ("search", searched)


def _searched(name: str) -> str:
    part, scorer = _place(name)
    return "beam 4×4" if part == "beam" else scorer


def _cost(name: str) -> str:
    return "tokens" if name.endswith("tokens") else "environment steps"


def _named(name: str) -> str:
    return "AgentPRM" if name == REFERENCE else f"`{name}`"


def _number(same: Sequence[Record]) -> str:
    return "one run" if len(same) == 1 else f"{len(same)} seeds"


def _over(same: Sequence[Record]) -> str:
    if len(same) == 1:
        over = "goals" if same[0]["goals"] else "tasks"
        return f", one run (95 % bootstrap over its {over}; other seeds may differ by more)"
    if all(record["goals"] for record in same):
        return f" (95 % bootstrap of seeds and goals crossed, or t over {len(same)} seeds if that is wider)"
    return f" (95 % t interval over {len(same)} seeds)"


def _interval(d: Difference) -> str:
    return f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]"


def _each(d: Difference) -> str:
    return ", ".join(f"{value:+.1f}" for value in d.seeds)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _average(numbers: Sequence[float | None], form: str) -> str:
    known = [number for number in numbers if number is not None]
    return form.format(_mean(known)) if known else "–"


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Print the tables of a folder of records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=Path, default=records.FOLDER)
    parser.add_argument("--environment")
    parser.add_argument("--group")
    arguments = parser.parse_args()
    print(section(records.read_all(arguments.records, arguments.environment, arguments.group)))


if __name__ == "__main__":
    main()
