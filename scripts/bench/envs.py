"""How fast environments are on one core: steps and resets per second of processor time.

    python scripts/bench/envs.py                      # every environment that can run here
    python scripts/bench/envs.py babyai --seconds 10 --json rates.json

Half of the actions are the expert's for the task, in order; the others are drawn from its actions on all
tasks, so that some are refused and some lead astray. No model is involved. It is processor time rather
than the clock's, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before numpy

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from rlprm import envs
from rlprm.errors import DemonstrationError
from rlprm.types import End, Split, Task

PRODUCTS = 1000


@dataclass(frozen=True)
class Case:
    """What is measured."""

    name: str
    environment: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    target: float | None = None
    """Steps per second this project wants."""
    published: str = ""
    """What others say of theirs."""


@dataclass(frozen=True)
class Rates:
    """Per second of processor time; None where the environment cannot run here."""

    name: str
    steps: float | None = None
    resets: float | None = None
    """Of tasks that were begun before."""
    first_resets: float | None = None
    """Of tasks that were not."""
    tasks: int = 0
    """How many were played."""
    refused: float | None = None
    """Share of the actions that could not be carried out."""
    target: float | None = None
    note: str = ""


def cases(names: Sequence[str]) -> Iterator[Case]:
    """Every environment of some names as it is by default, and BabyAI on AgentGym's 40 levels."""
    targets = {"babyai": 1_000.0, "textcraft": 100_000.0, "webshop": 5_000.0}
    for name in names:
        yield Case(name, name, target=targets.get(name))
        if name == "babyai":
            levels = list(envs.load(name).LEVELS)  # type: ignore[attr-defined]
            published = "AgentGym's text wrapper: about 200"
            yield Case("babyai, 40 levels", name, {"levels": levels}, targets[name], published)


def measure(case: Case, *, seconds: float, prepare: float, most: int, seed: int) -> Rates:
    """Time one case.

    Args:
        case: What is measured.
        seconds: Processor time of steps, and again of resets, to measure at least.
        prepare: Time after which no more tasks are begun, by the clock.
        most: Tasks to play.
        seed: Of the actions.
    """
    if reason := envs.missing(case.environment):
        return Rates(case.name, target=case.target, note=reason)
    module = envs.load(case.environment)
    plans, first = _plans(module, case, prepare, most)
    draw = random.Random(seed)
    # Without those that end an episode: they are quick, and nothing comes after them.
    pool = [action for actions in plans.values() for action in actions[:-1]]
    pool = pool or [action for actions in plans.values() for action in actions]

    begun, spent = 0, 0.0
    while spent < seconds or begun < len(plans):
        started = _seconds()
        for task in plans:
            module.make(task, end=End.DECLARED).reset()
        spent += _seconds() - started
        begun += len(plans)
    resets = begun / spent

    steps, refused, spent = 0, 0, 0.0
    for task in cycle(plans):
        if spent >= seconds:
            break
        actions = list(islice(_mixed(plans[task], pool, draw), module.ROUND_LIMIT))
        env = module.make(task, end=End.DECLARED)
        env.reset()
        started = _seconds()
        for action in actions:
            turn = env.step(action)
            steps += 1
            refused += not turn.valid
            if turn.stop is not None:
                break
        spent += _seconds() - started
    return Rates(
        case.name, steps / spent, resets, first, len(plans), refused / steps, case.target, case.published
    )


def search_seconds() -> float | None:
    """Seconds of one of WebShop's searches over 1,000 products; None where that environment is not there."""
    if "webshop" not in envs.available() or envs.missing("webshop"):
        return None
    from rlprm.envs.webshop.search.index import SearchIndex
    from rlprm.envs.webshop.shop.generated_products import generated_products
    from rlprm.envs.webshop.shop.product import documented

    documents = [documented(product) for product in islice(cycle(generated_products()), PRODUCTS)]
    index = SearchIndex.of(documents)
    draw = random.Random(0)
    words = sorted({word for document in documents[:200] for word in document.split()})
    queries = [" ".join(draw.choice(words) for _ in range(5)) for _ in range(500)]  # none is asked twice
    started = _seconds()
    for query in queries:
        index.search(query)
    return (_seconds() - started) / len(queries)


def _plans(module: Any, case: Case, prepare: float, most: int) -> tuple[dict[Task, list[str]], float]:
    """Return the expert's actions for tasks it solves, and how many tasks are begun in a second."""
    # The first task pays for what is loaded once: it is none of those that are timed.
    module.make(module.tasks(Split.DEV, 0, 1, **case.env_kwargs)[0], end=End.DECLARED).reset()
    deadline = time.perf_counter() + prepare
    plans: dict[Task, list[str]] = {}
    begun, spent = 0, 0.0
    for task in module.tasks(Split.TEST, 0, most, **case.env_kwargs):
        started = _seconds()
        module.make(task, end=End.DECLARED).reset()
        spent += _seconds() - started
        begun += 1
        try:
            plans[task] = module.demonstrate(task, end=End.DECLARED)
        except DemonstrationError:
            plans[task] = []  # played with other tasks' actions alone
        if time.perf_counter() > deadline:
            break
    if not any(plans.values()):
        raise SystemExit(f"{case.name}: the expert solves none of the first {len(plans)} tasks")
    return plans, begun / spent


def _mixed(plan: Sequence[str], pool: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Yield the plan's actions in order, each after as many others as a coin says; in the end only others."""
    waiting = iter(plan)
    while True:
        following = next(waiting, None) if draw.random() < 0.5 else None
        yield following if following is not None else draw.choice(pool)


def _seconds() -> float:
    """Processor time of this process and of those it started and waited for (compilers)."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def table(rates: Sequence[Rates]) -> str:
    """Return the rates as a table in Markdown."""
    lines = [
        "| environment | steps/s | resets/s | first resets/s | refused | tasks | target | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rates:
        numbers = [_short(row.steps), _short(row.resets), _short(row.first_resets)]
        share = "" if row.refused is None else f"{row.refused:.0%}"
        wanted = "" if row.target is None else f"{row.target:,.0f}"
        if row.steps is not None and row.target is not None:
            wanted += " met" if row.steps >= row.target else " missed"
        cells = [row.name, *numbers, share, str(row.tasks), wanted, row.note]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("environments", nargs="*", help="names; every one that is found if left out")
    parser.add_argument("--seconds", type=float, default=2.0, help="to measure steps, and resets, for (2)")
    parser.add_argument("--prepare", type=float, default=20.0, help="seconds for beginning new tasks (20)")
    parser.add_argument("--tasks", type=int, default=80, help="most tasks to play (80)")
    parser.add_argument("--seed", type=int, default=0, help="of the actions (0)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    chosen = parser.parse_args(arguments)
    rates = []
    for case in cases(chosen.environments or envs.available()):
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        rates.append(
            measure(case, seconds=chosen.seconds, prepare=chosen.prepare, most=chosen.tasks, seed=chosen.seed)
        )
    search = search_seconds() if "webshop" in {rate.name for rate in rates} else None
    print(table(rates))
    if search is not None:
        print(f"\nwebshop: a search over {PRODUCTS:,} products takes {1e3 * search:.2f} ms")
    if chosen.json is not None:
        figures = {"rates": [asdict(rate) for rate in rates], "search_over_1000_products_s": search}
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
