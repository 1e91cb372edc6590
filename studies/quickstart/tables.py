"""The record of the quickstart as Markdown: README's table, docs/results.md's and docs/performance.md's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlprm.errors import MismatchError
from rlprm.functional.statistics.seeds import seed_interval
from studies.quickstart.record import BESIDE, CONTROLS, COSTS, SEARCHES, UNTIL, Figure, Run

_IN_A_SENTENCE = ("shortest", "declared")
"""Free baselines that choose finished episodes alone; README has no room for a row of each."""
_NOT_IN_README = ("_x_policy", *_IN_A_SENTENCE)
_ENVIRONMENTS = {"babyai": "BabyAI"}
_NAMES = {"agentprm": "AgentPRM", "orm": "ORM", "clone": "a clone of the successes"}
_MAIN = "agentprm"


def table(recorded: Mapping[str, Any]) -> str:
    """Return all figures of the record as a Markdown table, with every seed.

    Raises:
        MismatchError: for runs with other recipes or figures.
    """
    runs = _same(recorded)
    interval = " [95 % interval over tasks]" if len(runs) == 1 else ", mean (each seed)"
    lines = [
        _about(runs),
        "",
        f"| | success in %{interval} | tokens per task | environment steps per task |",
        "| --- | --- | --- | --- |",
    ]
    rows = [("figures", name, "") for name in runs[0]["figures"]]
    rows += [(CONTROLS, name, "control: ") for name in runs[0].get(CONTROLS, {})]
    for part, name, prefix in rows:
        of_runs = [run[part][name] for run in runs]
        shown = _rate(of_runs, "+" if name.startswith("one sample, gain") else "")
        cells = [f"{prefix}{name}{_k(of_runs)}", shown, _mean(of_runs, "tokens"), _mean(of_runs, "steps", 1)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_differences(runs)])


def _differences(runs: Sequence[Run]) -> list[str]:
    """Return a table of what AgentPRM's searches win; none for a single run, which has no spread."""
    found = []
    for search in dict.fromkeys(
        match[1] for name in runs[0]["figures"] if (match := _SCORED.fullmatch(name))
    ):
        main = f"{search}, {_MAIN}"
        if main not in runs[0]["figures"]:
            continue
        for name, figure in runs[0]["figures"].items():
            same = name.startswith(f"{search}, ") and name != main
            of_search = name.endswith(f" of {main}") or "policy" in figure
            if same or name == "greedy" or (of_search and not search.startswith("best of")):
                seeds = [run["figures"][main]["success"] - run["figures"][name]["success"] for run in runs]
                found.append((f"{main} − {name}", seeds))
    rows = []
    for name, seeds in found:
        if len(seeds) > 1:
            rows.append(f"| {name} | {_difference(seeds)} |")
    head = ["", "| difference in points | mean [95 %, t over seeds] (each seed) |", "| --- | --- |"]
    return [*head, *rows] if rows else []


def short_table(recorded: Mapping[str, Any]) -> str:
    """Return README's table: scorers by best-of-N and beams, with sentences for what has no scorer.

    Raises:
        MismatchError: for runs with other recipes or figures.
    """
    runs = _same(recorded)
    figures = {name: [run["figures"][name] for run in runs] for name in runs[0]["figures"]}
    searches = list(dict.fromkeys(match[1] for name in figures if (match := _SCORED.fullmatch(name))))
    scorers = list(dict.fromkeys(match[2] for name in figures if (match := _SCORED.fullmatch(name))))
    lines = [
        _about(runs) + " " + _bounds(figures),
        "",
        "| chosen by | " + " | ".join(f"{search} | tokens, steps" for search in searches) + " |",
        "| --- |" + " --- | --- |" * len(searches),
    ]
    for scorer in scorers:
        if any(part in scorer for part in _NOT_IN_README):
            continue
        of_scorer = [figures.get(f"{search}, {scorer}") for search in searches]
        cells = [cell for of in of_scorer for cell in ((_rate(of), _costs(of)) if of else ("–", "–"))]
        lines.append(f"| {' | '.join([_NAMES.get(scorer, f'`{scorer}`'), *cells])} |")
    sentences = [*_equal_cost(figures), *_by_other_policies(figures), *_of_rl(figures)]
    return "\n".join([*lines, "", " ".join(sentences)])


def searches_table(recorded: Mapping[str, Any]) -> str:
    """Return the other searches beside sampling until success shows, at each search's own cost.

    Raises:
        MismatchError: for runs with other recipes or figures.
    """
    runs = _same(recorded)
    head = ["search", "success in %, mean (each seed)", "tokens", "steps"]
    head += [f"− until `transcript` shows success, at its {cost}" for cost in COSTS.values()]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for name in runs[0].get(SEARCHES, {}):
        of_runs = [run[SEARCHES][name] for run in runs]
        cells = [name, _rate(of_runs), _mean(of_runs, "tokens"), _mean(of_runs, "steps", 1)]
        for cost in COSTS:
            pairs = [(figure["success"], figure[UNTIL][cost]) for figure in of_runs if UNTIL in figure]
            beyond = " †" if any(until["beyond_pool"] for _, until in pairs) else ""
            seeds = [success - until["success"] for success, until in pairs]
            cells.append(f"{_difference(seeds)}{beyond}" if seeds else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "No other search has been recorded yet."


def seconds_table(recorded: Mapping[str, Any]) -> str:
    """Return the seconds of each stage as a Markdown table.

    Raises:
        MismatchError: for runs with other recipes or figures.
    """
    runs = _same(recorded)
    lines = ["| stage | seconds, mean (each seed) |", "| --- | --- |"]
    rows = [(name, [run["seconds_of"][name] for run in runs]) for name in runs[0].get("seconds_of", {})]
    for name, seconds in [*rows, ("all", [run["seconds"] for run in runs])]:
        each = f" ({', '.join(f'{of_run:.0f}' for of_run in seconds)})" if len(runs) > 1 else ""
        lines.append(f"| `{name}` | {sum(seconds) / len(seconds):.0f}{each} |")
    return "\n".join(lines)


_AT_COST = re.compile(r"(.+), at the ((?:environment steps|tokens) of .+)")
"""Name of a figure: the reference of a search at the search's cost."""
_UNTIL = re.compile(r"until (\w+), at most k")
_SCORED = re.compile(r"(best of \d+|beam [^,]*|step_\w+), (\w+)")
"""Name of a figure: search and scorer."""


def _same(recorded: Mapping[str, Any]) -> Sequence[Run]:
    runs: Sequence[Run] = recorded["runs"]
    for run in runs:
        for name, before, now in (
            ("recipes", runs[0]["recipes"], run["recipes"]),
            ("figures", sorted(runs[0]["figures"]), sorted(run["figures"])),
            *((part, sorted(runs[0].get(part, {})), sorted(run.get(part, {}))) for part in BESIDE),
        ):
            if before != now:
                raise MismatchError(
                    f"seeds {runs[0]['seed']} and {run['seed']} have different {name}; record them again"
                )
    return runs


def _about(runs: Sequence[Run]) -> str:
    processors = "; ".join(dict.fromkeys(run["made"]["processor"] for run in runs))
    minutes = sorted({round(run["seconds"] / 60) for run in runs})
    taken = f"{minutes[0]} to {minutes[-1]}" if len(minutes) > 1 else str(minutes[0])
    seeds = ", ".join(str(run["seed"]) for run in runs)
    single, name = len(runs) == 1, runs[0]["environment"]
    number = f"one run (seed {seeds})" if single else f"{len(runs)} seeds ({seeds})"
    shown = "Success in %, 95 % intervals over tasks." if single else "Success in %, mean (each seed)."
    return (
        f"{_ENVIRONMENTS.get(name, name)}, {runs[0]['test_tasks']} test tasks, {number}, "
        f"{taken} minutes{'' if single else ' each'} on {processors}. {shown}"
    )


def _bounds(figures: Mapping[str, Sequence[Figure]]) -> str:
    named = {name: name for name in ("one sample", "greedy") if name in figures}
    named |= {
        name: f"{match[1]} by `{match[2]}`"
        for name in figures
        if (match := _SCORED.fullmatch(name)) and match[2] in _IN_A_SENTENCE
    }
    named |= {name: f"an oracle, {name[8:-1]}" for name in figures if name.startswith("oracle (")}
    shown = [f"{text} {_rate(figures[name])}" for name, text in named.items()]
    return f"For comparison: {'; '.join(shown)}." if shown else ""


def _equal_cost(figures: Mapping[str, Sequence[Figure]]) -> list[str]:
    found = []
    for name, of_runs in figures.items():
        if not (match := _AT_COST.fullmatch(name)):
            continue
        reference, cost = match.groups()
        beyond = ", which costs less" if any(figure["beyond_pool"] for figure in of_runs) else ""
        ks = sum(figure["k"] for figure in of_runs) / len(of_runs)
        if until := _UNTIL.fullmatch(reference):
            shown = f"one sample after another until `{until[1]}` shows success, at most {ks:.1f},"
        else:
            shown = f"best of {ks:.1f} by `{reference.rpartition(', ')[2]}`"
        found.append(f"At the {_titled(cost)}: {shown} {_rate(of_runs)}{beyond}.")
    return found


def _by_other_policies(figures: Mapping[str, Sequence[Figure]]) -> list[str]:
    """Return a sentence for each search in which another policy acted."""
    return [
        f"`{name.partition(', ')[0]}`, in which the {of_runs[0]['policy']} acts: {_rate(of_runs)}, "
        f"{_mean(of_runs, 'tokens')} tokens, {_mean(of_runs, 'steps')} steps."
        for name, of_runs in figures.items()
        if "policy" in of_runs[0]
    ]


def _of_rl(figures: Mapping[str, Sequence[Figure]]) -> list[str]:
    of_rl = [figures.get(f"one sample, {part} RL") for part in ("before", "after", "gain by")]
    if not all(of_rl):
        return []
    before, after, gain = (figure or [] for figure in of_rl)
    return [f"Agent RL, one sample on all its test tasks: {_rate(before)} before, {_rate(after)} after, "
            f"{_rate(gain, '+')} gained."]  # fmt: skip


def _difference(seeds: Sequence[float]) -> str:
    """Return a mean over seeds with its t interval, if there are several, and every seed."""
    interval, mean = seed_interval(seeds), sum(seeds) / len(seeds)
    if interval is None:
        return f"{mean:+.1f}"
    each = ", ".join(f"{seed:+.1f}" for seed in seeds)
    return f"{mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}] ({each})"


def _rate(of_runs: Sequence[Figure], sign: str = "") -> str:
    rates = [figure["success"] for figure in of_runs]
    if len(of_runs) > 1:
        each = ", ".join(f"{rate:{sign}.1f}" for rate in rates)
        return f"{sum(rates) / len(rates):{sign}.1f} ({each})"
    bounds = (
        f" [{of_runs[0]['low']:{sign}.0f}, {of_runs[0]['high']:{sign}.0f}]" if "low" in of_runs[0] else ""
    )
    return f"{rates[0]:{sign}.1f}{bounds}"


def _mean(of_runs: Sequence[Figure], cost: str, digits: int = 0) -> str:
    costs = [figure[cost] for figure in of_runs if cost in figure]
    return f"{sum(costs) / len(costs):,.{digits}f}" if costs else ""


def _costs(of_runs: Sequence[Figure]) -> str:
    return ", ".join(filter(None, (_mean(of_runs, "tokens"), _mean(of_runs, "steps"))))


def _k(of_runs: Sequence[Figure]) -> str:
    ks = [f"{figure['k']:.1f}" for figure in of_runs if "k" in figure]
    return f" (k = {', '.join(ks)})" if ks else ""


def _titled(name: str) -> str:
    """Return a name with the scorers' proper names."""
    return re.sub(r"\b(agentprm|orm)\b", lambda match: _NAMES[match[1]], name).replace(", ", " by ")
