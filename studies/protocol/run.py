"""Run units of the protocol, or show what is left: ``python -m studies.protocol.run``.

    python -m studies.protocol.run --environment babyai --groups primary --seeds 0 1 2 --dry-run
    python -m studies.protocol.run --environment babyai --groups primary --seeds 0 1 2

A unit is one (environment, seed, group). It starts from nothing and ends with its record,
``docs/results/protocol/<environment>-<group>-s<seed>.json``. A unit that has a record is done. An interrupted
unit continues in its folder. The folder is removed when the record is written, unless --keep is given.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from rlprm.errors import ConfigError
from rlprm.evaluation.baselines import GUIDANCE
from rlprm.runtime.files import read_json, write_json
from studies.protocol import records
from studies.protocol.arms import GROUPS
from studies.protocol.environments import ENVIRONMENTS
from studies.protocol.rows import record_of
from studies.protocol.unit import Unit, digest_of_recipes

log = logging.getLogger(__name__)


def run(unit: Unit, file: Path, *, keep: bool = False, until: float | None = None) -> None:
    """Run a unit and write its record; a unit whose record has nothing left is done.

    Args:
        unit: an environment, seed and group.
        file: of the record.
        keep: keep the unit's folder.
        until: a time from which on no reward model is begun; the unit continues in its folder.

    Raises:
        ConfigError: for step searches in an environment whose endpoint is best of 16.
        DataError: if the policy never succeeds, so that a clone has nothing to learn.
        MismatchError: if the record is of another scale.
    """
    if unit.members.searches and not unit.members.arms and unit.environment.kind != GUIDANCE:
        raise ConfigError(
            f"group: got {unit.group} with {unit.environment.name}, allowed: with environments of guidance "
            "tasks, where a beam has been run"
        )
    if file.exists() and not _left(file):
        records.require_scale(file, unit.scale)
        log.info("%s is done%s: %s", unit.name, _other_recipes(unit, file), file)
        return
    started, clock = time.perf_counter(), unit.folder / "seconds.json"
    before = read_json(clock)["seconds"] if clock.exists() else 0.0  # of interrupted runs, as far as known
    try:
        record = record_of(unit, until)
    finally:
        seconds = before + time.perf_counter() - started
        write_json(clock, {"seconds": seconds})
    record["seconds"]["total"] = round(seconds)
    records.write(file, record)
    left = ", ".join(record.get("left", []))
    log.info("%s took %.0f minutes: %s%s", unit.name, seconds / 60, file, left and f"; left: {left}")
    if not keep and not left:
        shutil.rmtree(unit.folder)


def plan(units: Sequence[Unit], folder: Path) -> list[str]:
    """Return lines that say which units are done, which are left, and how long these will take."""
    lines, minutes, unknown = [], 0.0, 0
    for unit in units:
        file = folder / f"{unit.name}.json"
        if file.exists() and not _left(file):
            records.require_scale(file, unit.scale)
            lines.append(f"{unit.name}: done{_other_recipes(unit, file)}")
            continue
        expected = expected_minutes(unit, folder)
        begun = ", begun" if unit.folder.exists() else ""
        lines.append(
            f"{unit.name}: left{begun}, "
            + ("duration unknown" if expected is None else f"about {expected:.0f} minutes")
        )
        minutes, unknown = minutes + (expected or 0.0), unknown + (expected is None)
    left = sum(": left" in line for line in lines)
    summary = f"{len(lines) - left} units done, {left} left, {minutes:.0f} minutes left on one core"
    return [*lines, summary + (f", and {unknown} units of unknown duration" if unknown else "")]


def _left(file: Path) -> list[str]:
    """Return the reward models that a record misses."""
    found: list[str] = read_json(file).get("left", [])
    return found


def _other_recipes(unit: Unit, file: Path) -> str:
    """Return a remark if the recipes have changed since; without its record a unit runs again."""
    return (
        "" if read_json(file)["recipes"] == digest_of_recipes(unit) else ", with other recipes than today's"
    )


def expected_minutes(unit: Unit, folder: Path) -> float | None:
    """Return the mean minutes of recorded units of the group, else of the environment; None without any."""
    for group in (unit.group, None):
        seconds = [
            float(record["seconds"]["total"])
            for record in records.read_all(folder, unit.environment.name, group)
        ]
        if seconds:
            return sum(seconds) / len(seconds) / 60
    return None


def main() -> None:
    """Run units, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environment", choices=list(ENVIRONMENTS), nargs="+", default=["babyai"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--groups", choices=list(GROUPS), nargs="+", default=["primary"])
    parser.add_argument("--folder", type=Path, default=Path("runs/protocol"), help="where units work")
    parser.add_argument(
        "--records", type=Path, help=f"where records go: {records.FOLDER}, or below --folder with --scale"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="below 1: fewer tasks and epochs, to try the code out"
    )
    parser.add_argument("--dry-run", action="store_true", help="show units done, units left and minutes left")
    parser.add_argument("--keep", action="store_true", help="keep a unit's folder when it is done")
    parser.add_argument(
        "--minutes", type=float, help="begin no reward model after so many; the same command continues"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = arguments.folder if arguments.scale == 1.0 else arguments.folder / f"scale{arguments.scale:g}"
    target = arguments.records or (records.FOLDER if arguments.scale == 1.0 else folder / "records")
    if arguments.scale != 1.0 and target.resolve() == records.FOLDER.resolve():
        parser.error(f"--records: got {target}, allowed with --scale: another folder; a trial is no result")
    units = [
        Unit(ENVIRONMENTS[name], group, seed, folder / f"{name}-{group}-s{seed}", arguments.scale)
        for group in arguments.groups
        for seed in arguments.seeds
        for name in arguments.environment
    ]
    if arguments.dry_run:
        print("\n".join(plan(units, target)))
        return
    until = None if arguments.minutes is None else time.time() + 60 * arguments.minutes
    for unit in tqdm(units, desc="units", unit="unit", disable=len(units) == 1):
        run(unit, target / f"{unit.name}.json", keep=arguments.keep, until=until)


if __name__ == "__main__":
    main()
