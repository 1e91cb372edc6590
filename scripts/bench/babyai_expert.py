"""How many tasks of each BabyAI level the expert solves, for the tables of docs/environments.md.

    python scripts/bench/babyai_expert.py --limits 20 40 --tasks 30

Counts are of the first train tasks with ``end: declared``. The mean number of actions is that of the solved
tasks, ``finish`` included.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import fmean

from rlprm import envs
from rlprm.errors import DemonstrationError
from rlprm.types import End, Split, Task


def lengths(tasks: Sequence[Task]) -> list[int]:
    """Return the number of actions of each demonstration there is."""
    found = []
    for task in tasks:
        try:
            found.append(len(envs.of_task(task).demonstrate(task, end=End.DECLARED)))
        except DemonstrationError:
            continue
    return found


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limits", type=int, nargs="+", default=[20, 40], help="demonstration_limit")
    parser.add_argument("--tasks", type=int, default=30, help="tasks of each level")
    parser.add_argument("--levels", nargs="+", help="all by default")
    arguments = parser.parse_args()
    babyai = envs.load("babyai")
    heads = [f"limit {limit}: solved of {arguments.tasks} | actions" for limit in arguments.limits]
    print(f"| level | {' | '.join(heads)} |")
    print("| --- |" + " ---: | ---: |" * len(heads))
    for level in arguments.levels or babyai.LEVELS:
        cells = [level]
        for limit in arguments.limits:
            tasks = babyai.tasks(Split.TRAIN, 0, arguments.tasks, levels=[level], demonstration_limit=limit)
            found = lengths(tasks)
            cells += [str(len(found)), f"{fmean(found):.1f}" if found else "–"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
